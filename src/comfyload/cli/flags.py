"""The flags that several commands share: one spelling, one help text each."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from comfyload.cli.signature import option
from comfyload.record.flag import JUDGE, RESULT, flags_of
from comfyload.record.options import RunOptions

if TYPE_CHECKING:
    from comfyload.judge.gates.grammar import GateSet

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no table.", rich_help_panel=RESULT)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.", rich_help_panel=RESULT)]
AllRows = Annotated[bool, typer.Option("--all", help="Show every row, not only those that matter most.")]
Archive = Annotated[
    Path,
    typer.Option(metavar="DIR", help="The folder of baselines.", envvar="COMFYLOAD_ARCHIVE", rich_help_panel=RESULT),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write summary, statistics and jobs as one JSON object."),
]
_RUN = flags_of(RunOptions)
MetricsLog = Annotated[Path | None, option(_RUN["metrics_log"])]
Note = Annotated[list[str] | None, option(_RUN["note"])]
Accept = Annotated[
    list[str] | None,
    typer.Option("--accept", metavar="KEY", help="Compare although KEY differs. Repeatable.", rich_help_panel=JUDGE),
]
Margin = Annotated[
    float, typer.Option("--margin", min=0.001, max=1, metavar="SHARE", help="Smaller differences do not matter.")
]


class GateFlags(Struct, frozen=True, kw_only=True):
    """The limits that results are tested against."""

    gate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="'p95_latency_s <= 30s', 'images_per_minute >= 0.95 * baseline'. Repeatable; replaces the defaults.",
            rich_help_panel=JUDGE,
        ),
    ] = None
    gates: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Read gates and expected errors from a TOML file.", rich_help_panel=JUDGE),
    ] = None
    expect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGEX", help="An error whose text matches this is expected. Repeatable.", rich_help_panel=JUDGE
        ),
    ] = None
    independent_failures: Annotated[
        bool,
        typer.Option(
            "--independent-failures",
            help="Judge a success rate as if failures came one at a time, not in bursts: fewer jobs prove it.",
            rich_help_panel=JUDGE,
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


Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Exit with 3 if a gate passes but too few jobs prove it (PASS*).",
        rich_help_panel=JUDGE,
    ),
]


class FailIf(StrEnum):
    """What a comparison must not show."""

    slower = "slower"
    more_failures = "more-failures"


FailIfs = Annotated[
    list[FailIf] | None,
    typer.Option(
        "--fail-if",
        metavar="slower|more-failures",
        help="Exit with 1 if B is proven worse in this way, with 3 if it may be. Repeatable.",
        rich_help_panel=JUDGE,
    ),
]
DEFAULT_ARCHIVE = Path("infra/observability/baselines")
"""Where the checklist keeps baselines, relative to the root of a project."""
