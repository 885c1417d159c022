"""The flags that several commands share: one spelling, one help text each."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from comfyload.record.flag import JUDGE, RESULT, Flag, flags_of
from comfyload.record.options import RunOptions

Quiet = Annotated[bool, Flag("--quiet", "", "No progress and no table.", RESULT, short="-q")]
Json = Annotated[bool, Flag("--json", "", "Print JSON instead of tables.", RESULT)]
AllRows = Annotated[bool, Flag("--all", "", "Show every row, not only those that matter most.")]
Archive = Annotated[Path, Flag("--archive", "DIR", "The folder of baselines.", RESULT, env="COMFYLOAD_ARCHIVE")]
Output = Annotated[
    Path | None, Flag("--output", "FILE", "Write summary, statistics and jobs as one JSON object.", short="-o")
]
_RUN = flags_of(RunOptions)
MetricsLog = Annotated[Path | None, _RUN["metrics_log"].flag]
Note = Annotated[list[str] | None, _RUN["note"].flag]
Accept = Annotated[list[str] | None, Flag("--accept", "KEY", "Compare although KEY differs. Repeatable.", JUDGE)]
Margin = Annotated[float, Flag("--margin", "SHARE", "Smaller differences do not matter.", least=0.001, most=1)]


Target = Annotated[
    str, typer.Argument(metavar="RUN_OR_BASELINE", help="A run directory, or a baseline by name, folder or path.")
]
Strict = Annotated[bool, Flag("--strict", "", "Exit with 3 if a gate passes but too few jobs prove it (PASS*).", JUDGE)]


class FailIf(StrEnum):
    """What a comparison must not show."""

    slower = "slower"
    more_failures = "more-failures"


FailIfs = Annotated[
    list[FailIf] | None,
    Flag(
        "--fail-if",
        "slower|more-failures",
        "Exit with 1 if B is proven worse in this way, with 3 if it may be. Repeatable.",
        JUDGE,
    ),
]
DEFAULT_ARCHIVE = Path("infra/observability/baselines")
"""Where the checklist keeps baselines, relative to the root of a project."""
