"""What is the same of every finding of a code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

Level = Literal["invalid", "warning", "info"]
"""`invalid`: the numbers do not measure what they are named after; `warning`: they do, with the doubt named."""

RESUBMITTED = "Something resubmits prompts: look for a proxy that retries POST requests, and switch that off."


class FindingRow(Struct, frozen=True, kw_only=True):
    """How grave it is, what it means, and what to do about it.

    `varies`: when the level is another one, in words; "" if it never is. `hint` may name fields in braces: a finding
    gives their values, and `fields` says what stands there without one.
    """

    level: Level
    meaning: str
    hint: str
    varies: str = ""
    fields: dict[str, str] = {}

    def advice(self, fields: Mapping[str, str]) -> str:
        """The hint with its fields filled in."""
        return self.hint.format_map({**self.fields, **fields})
