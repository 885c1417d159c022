"""`comfyload report` and `export`: a result for people, and for other tools."""

from pathlib import Path
from typing import Annotated

import typer

from comfyload.app.gate_flags import GateFlags
from comfyload.cli.flags import DEFAULT_ARCHIVE, Accept, Archive, MetricsLog, Target
from comfyload.cli.output import check_writable, echo
from comfyload.cli.signature import with_flags
from comfyload.errors import UsageError
from comfyload.record.atomic import is_stdout
from comfyload.record.flag import Flag


@with_flags
def report(
    gating: GateFlags,
    target: Target,
    html: Annotated[Path, Flag("--html", "FILE", "Write the page to this file.")] = Path("report.html"),
    against: Annotated[
        str | None, Flag("--against", "B", "Compare with this run or baseline, on the same page.")
    ] = None,
    accept: Accept = None,
    metrics_log: MetricsLog = None,
    archive: Archive = DEFAULT_ARCHIVE,
) -> None:
    """Write a self-contained HTML page: verdicts, charts, tables, and the command that repeats the run.

    [bold]Example[/bold]: comfyload report rtx5060ti --html report.html
    """
    from comfyload.app.check import baseline_of, check
    from comfyload.app.locate import default_log, find
    from comfyload.app.report import page, write_page

    check_writable("--html", html)
    found = find(target, archive)
    gates = gating.read()
    other = None if against is None else find(against, archive)
    base = baseline_of(gates, against, archive)
    verdicts = check(found, gates, log=default_log(metrics_log), baseline=base).verdicts
    write_page(html, page(found, gates.gates, verdicts, other, accept or []))
    echo(f"Page: {html}", err=is_stdout(html))


@with_flags
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    csv: Annotated[Path | None, Flag("--csv", "FILE", "Write one row per job.")] = None,
    parquet: Annotated[
        Path | None, Flag("--parquet", "FILE", "Write one typed row per job; needs comfyload\\[parquet].")
    ] = None,
    prometheus: Annotated[
        Path | None, Flag("--prometheus", "FILE", "Write the summary in Prometheus' text format.")
    ] = None,
    otlp: Annotated[
        str | None,
        Flag("--otlp", "URL|FILE", "Write a trace of each job to a collector or a file; needs comfyload\\[otlp]."),
    ] = None,
) -> None:
    """Write a run in the formats of other tools: one or several at once.

    [bold]Example[/bold]: comfyload export runs/20261123T120000Z-book --csv jobs.csv --prometheus comfyload.prom
    """
    if csv is None and parquet is None and prometheus is None and otlp is None:
        raise UsageError("no format is given", "give --csv, --parquet, --prometheus or --otlp")
    from comfyload.app.export import export as write

    for flag, file in (("--csv", csv), ("--parquet", parquet), ("--prometheus", prometheus)):
        check_writable(flag, file)
    taken = any(map(is_stdout, (csv, parquet, prometheus, Path(otlp or ""))))
    for line in write(run, csv=csv, parquet=parquet, prometheus=prometheus, otlp=otlp):
        echo(line, err=taken)
