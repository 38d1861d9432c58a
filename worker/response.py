"""What a provider's response says, in our words: below the backends that read it and the store that keeps it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that the provider counted and their price; None where it did not say or the price is unknown."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """One call as the model asked for it; arguments is the model's JSON text, unchecked."""

    call_id: str
    name: str
    arguments: str
