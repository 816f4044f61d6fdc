"""A secret value that no message, log or traceback shows."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Secret:
    """A value that no repr, str, format or traceback shows."""

    _value: str = field(repr=False)
    #: where the value came from and how to correct it there: a sentence for the message if it is refused
    remedy: str = field(default="", compare=False)

    def reveal(self) -> str:
        """The value itself. Call it only where the value is sent."""
        return self._value

    def __str__(self) -> str:
        return "****"

    def __repr__(self) -> str:
        return "Secret(****)"
