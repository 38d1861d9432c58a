"""What a run costs."""

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.assistants.prices import Price, PriceList, Prices
from worker.errors import SettingsError

PRICES = Prices({"m": Price(input=2, output=8), "m-mini": Price(input=0.5, output=1)})


def test_a_million_tokens_cost_the_price() -> None:
    """Input and output are priced apart."""
    assert PRICES.cost("m", 1_000_000, 0) == 2
    assert PRICES.cost("m", 0, 1_000_000) == 8
    assert PRICES.cost("m-mini", 2_000_000, 1_000_000) == 2


def test_a_dated_snapshot_costs_what_its_model_does() -> None:
    """Only a full date at the end is a snapshot."""
    assert PRICES.cost("m-mini-2026-03-17", 2_000_000, 0) == 1
    assert PRICES.cost("m-2026", 1, 1) is None


def test_an_unknown_model_has_no_cost() -> None:
    """Null, never 0: also for names that only begin like a known one."""
    assert PRICES.cost("m-pro", 1_000, 1_000) is None
    assert PRICES.cost("", 0, 0) is None


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 10**6))
def test_more_tokens_never_cost_less(tokens_in: int, tokens_out: int, more: int) -> None:
    """The cost grows with either count."""
    cost = PRICES.cost("m", tokens_in, tokens_out)
    dearer = PRICES.cost("m", tokens_in + more, tokens_out), PRICES.cost("m", tokens_in, tokens_out + more)
    assert cost is not None
    assert all(other is not None and other > cost for other in dearer)


def test_the_shipped_list_is_whole() -> None:
    """The demo's model has a price, and a model that OpenAI never had has none."""
    shipped = Prices.load()
    assert shipped.cost("gpt-6-luna", 1_000_000, 1_000_000) == pytest.approx(0.60)
    assert shipped.cost("gpt-4o-mini-2024-07-18", 1_000_000, 0) == pytest.approx(0.15)
    assert shipped.cost("gpt-5.1-mini", 1, 1) is None


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    """RUNWRIGHT_PRICES may name another file of the same layout."""
    file = tmp_path / "prices.yaml"
    file.write_text("- {source: the contract, as_of: 2026-01-31, models: {own: {input: 1, output: 2}}}\n")
    assert Prices.load(file).cost("own", 1_000_000, 1_000_000) == 3
    assert PriceList(source="s", as_of=date(2026, 1, 31), models={}).models == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("models: {}", "the file: Input should be a valid list"),
        ("- {source: x, models: {}}", "0.as_of: Field required"),
        ("- {source: x, as_of: 2026-01-01, models: {m: {input: -1, output: 1}}}", "0.models.m.input: Input should be"),
        ("- [", "this is not YAML"),
    ],
)
def test_a_wrong_list_stops_with_one_line(tmp_path: Path, text: str, reason: str) -> None:
    """The line names the variable, the file and the place."""
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        Prices.load(file)
    assert str(caught.value).startswith(f"RUNWRIGHT_PRICES={file}: {reason}")
    assert "\n" not in str(caught.value)
