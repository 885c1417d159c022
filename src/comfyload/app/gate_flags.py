"""The flags of gates: limits that the results of runs are tested against."""

from pathlib import Path
from typing import Annotated

from msgspec import Struct

from comfyload.judge.gates.grammar import GateSet
from comfyload.record.flag import JUDGE, Flag

UNTIL_PROVEN = Flag(
    "--until-proven",
    "",
    "Run until the gates are decided: at most --jobs (200 if not given), judged up to 4 times.",
    JUDGE,
)
"""Of a run alone."""


class GateFlags(Struct, frozen=True, kw_only=True):
    """The limits that results are tested against."""

    gate: Annotated[
        list[str] | None,
        Flag(
            "--gate",
            "RULE",
            "'p95_latency_s <= 30s', 'images_per_minute >= 0.95 * baseline'. Repeatable; replaces the defaults.",
            JUDGE,
        ),
    ] = None
    gates: Annotated[
        Path | None, Flag("--gates", "FILE", "Read gates and expected errors from a TOML file.", JUDGE)
    ] = None
    expect: Annotated[
        list[str] | None, Flag("--expect", "REGEX", "An error whose text matches this is expected. Repeatable.", JUDGE)
    ] = None
    independent_failures: Annotated[
        bool,
        Flag(
            "--independent-failures",
            "",
            "Judge a success rate as if failures came one at a time, not in bursts: fewer jobs prove it.",
            JUDGE,
        ),
    ] = False

    @property
    def given(self) -> bool:
        """Whether any gate is named."""
        return bool(self.gate) or self.gates is not None

    def read(self) -> GateSet:
        """The gates, or the default ones.

        Raises:
            UsageError: a gate is invalid.
        """
        from comfyload.app.check import gate_set

        return gate_set(self.gate or [], self.gates, self.expect or [], independent=self.independent_failures)
