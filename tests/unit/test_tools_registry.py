"""@tool, and finding the tools of a process."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tools.context import ToolContext
from tools.errors import ToolError
from tools.registry import Registry, Tool, tool, tool_of

CONTEXT = ToolContext("run", "thread", "call", 1, datetime.max.replace(tzinfo=UTC), {}, Path())


@tool
def plain(text: str) -> str:
    """Say it."""
    return text.upper()


@tool(name="other-name", timeout=2.5, effect="idempotent", approval=True)
async def other(text: str, context: ToolContext) -> str:
    """Say it later."""
    return text + context.run_id


def made(function: object) -> Tool:
    found = tool_of(function)
    assert found is not None
    return found


def test_plain_decorator() -> None:
    """Expected: the safest settings, and a function that can still be called directly."""
    one = made(plain)

    assert (one.name, one.description) == ("plain", "Say it.")
    assert (one.timeout, one.isolate, one.effect, one.approval, one.is_async) == (None, False, "once", False, False)
    assert plain("a") == "A"


def test_decorator_with_settings() -> None:
    """Expected: the settings are kept and the context is injected with the values."""
    one = made(other)

    assert (one.name, one.timeout, one.effect, one.approval, one.is_async) == (
        "other-name",
        2.5,
        "idempotent",
        True,
        True,
    )
    assert one.values('{"text": "a"}', CONTEXT) == {"text": "a", "context": CONTEXT}


def test_blank_arguments_mean_none() -> None:
    """Expected: what some servers send for a function without parameters is accepted."""

    @tool
    def ping() -> str:
        """Answer."""
        return "pong"

    assert made(ping).values("  ", CONTEXT) == {}


def test_a_mark_is_no_mark_on_another_thing() -> None:
    """Expected: only decorated functions are tools."""
    assert tool_of(made) is None
    assert tool_of("plain") is None


def test_one_name_for_two_functions_is_refused() -> None:
    """Expected: the error names both functions; the same function twice is no fault."""

    @tool(name="plain")
    def clash() -> None:
        """Clash."""

    assert Registry([made(plain), made(plain)]).names() == ["plain"]
    with pytest.raises(ToolError, match=r"two tools are named 'plain': plain \(.*: ?.*clash \("):
        Registry([made(plain), made(clash)])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"name": "no spaces"}, "letters, digits"),
        ({"name": "x" * 65}, "letters, digits"),
        ({"timeout": 0}, "more than 0"),
        ({"isolate": True}, "top level"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], reason: str) -> None:
    """Expected: the decoration itself fails and says where."""

    def local() -> None:
        """Local."""

    with pytest.raises(ToolError, match=f"local.*test_tools_registry.py.*{reason}"):
        tool(**settings)(local)  # type: ignore[call-overload]  # wrong on purpose


def test_load_finds_ours_and_the_named_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected: the shipped tools and those of the named module, also where it imports a shipped one."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shop_tools_ok.py").write_text(
        "from tools.arithmetic import calculate\nfrom tools.registry import tool\n"
        '@tool\ndef stock(item: str) -> int:\n    """Count."""\n    return len(item)\n'
    )

    registry = Registry.load(["shop_tools_ok"])

    assert registry.names() == ["calculate", "lookup_table", "read_document", "stock"]
    assert [one.name for one in registry.tools] == registry.names()
    assert all(one.effect == "read" for one in Registry.load().tools)
    assert registry.get("Stock") is None


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (None, "there is no tool module 'shop_tools_bad'"),
        ("import nowhere_to_be_found", "needs the module 'nowhere_to_be_found'"),
        ("\n1 / 0", r"ZeroDivisionError: division by zero \(shop_tools_bad.py:2\)"),
        ("def broken(:", "SyntaxError"),
        ("from tools.registry import tool\n@tool\ndef f(): pass", "has no docstring"),
    ],
)
def test_load_says_what_is_wrong_with_a_module(
    source: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expected: one line, whatever the module raises."""
    monkeypatch.syspath_prepend(tmp_path)
    if source is not None:
        (tmp_path / "shop_tools_bad.py").write_text(source)

    with pytest.raises(ToolError, match=reason) as caught:
        Registry.load(["shop_tools_bad"])

    assert "\n" not in str(caught.value)


def test_load_refuses_a_module_of_a_missing_package() -> None:
    """Expected: the full name that was given is in the message."""
    with pytest.raises(ToolError, match=r"no tool module 'nowhere_at_all\.tools'"):
        Registry.load(["nowhere_at_all.tools"])
