"""What a run costs, by a dated list of prices; a model that is not in it has no price, which is not a price of 0."""

import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from worker.errors import SettingsError

_SHIPPED = Path(__file__).with_name("prices.yaml")
_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Price(BaseModel):
    """USD for a million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: _Amount
    output: _Amount


class PriceList(BaseModel):
    """Prices of one source, and the day they held."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    as_of: date
    models: dict[str, Price]


_LISTS = TypeAdapter(list[PriceList])


class Prices:
    """The prices that this process knows."""

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._prices = dict(prices)

    @classmethod
    def load(cls, path: Path | None = None) -> "Prices":
        """Read the shipped prices, or those of RUNWRIGHT_PRICES; SettingsError says what is wrong with the file."""
        try:
            lists = _LISTS.validate_python(yaml.safe_load((path or _SHIPPED).read_text(encoding="utf-8")))
        except OSError as error:
            raise SettingsError(f"RUNWRIGHT_PRICES={path}: {error.strerror or 'cannot be read'}") from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise SettingsError(f"RUNWRIGHT_PRICES={path}: {where}: {first['msg']}") from None
        except (yaml.YAMLError, ValueError) as error:
            raise SettingsError(f"RUNWRIGHT_PRICES={path}: this is not YAML: {' '.join(str(error).split())}") from None
        return cls({model: price for one in lists for model, price in one.models.items()})

    def find(self, model: str) -> Price | None:
        """Return the price of exactly this model, or of the one that it is a dated snapshot of."""
        return self._prices.get(model) or self._prices.get(_SNAPSHOT.sub("", model))

    def cost(self, model: str, input_tokens: int, output_tokens: int) -> float | None:
        """Return USD, None where the model has no price."""
        price = self.find(model)
        if price is None:
            return None
        return (input_tokens * price.input + output_tokens * price.output) / 1_000_000
