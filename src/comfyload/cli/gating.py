"""Flags about verdicts, and where verdicts go: to the terminal, to a CI system, and into the exit code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Struct

from comfyload.app.gate_flags import GateFlags
from comfyload.cli.flags import FailIfs, Strict
from comfyload.cli.output import check_writable, echo, for_people, show_page
from comfyload.errors import UsageError
from comfyload.record.flag import RESULT, Flag
from comfyload.report.render.markdown import as_markdown
from comfyload.visible import visible

if TYPE_CHECKING:
    from comfyload.app.compare import Compared
    from comfyload.judge.gates.gate import GateVerdict
    from comfyload.judge.gates.grammar import GateSet
    from comfyload.report.junit import Suite


class VerdictFlags(Struct, frozen=True, kw_only=True):
    """Where verdicts go, and whether one that is not proven is good enough."""

    strict: Strict = False
    junit: Annotated[Path | None, Flag("--junit", "FILE", "Write the verdicts as JUnit XML.", RESULT)] = None
    github_summary: Annotated[
        bool, Flag("--github-summary", "", "Append the verdicts to $GITHUB_STEP_SUMMARY as Markdown.", RESULT)
    ] = False

    def check(self, *, json_: bool = False) -> None:
        """Before the work, not after it.

        Raises:
            UsageError: a file cannot be written, or the command does not run in GitHub Actions.
        """
        check_writable("--junit", self.junit, json_=json_)
        if self.github_summary and not os.environ.get("GITHUB_STEP_SUMMARY"):
            raise UsageError("$GITHUB_STEP_SUMMARY is not set", "--github-summary is for a step of GitHub Actions")

    def write(self, verdicts: Sequence[GateVerdict], suites: Mapping[str, Suite], before: str = "") -> None:
        """JUnit's file, and the step's summary with the Markdown `before` in front."""
        from comfyload.app.report import write_page
        from comfyload.report.junit import junit
        from comfyload.report.verdicts import markdown

        if self.junit is not None:
            write_page(self.junit, junit(verdicts, suites, strict=self.strict))
        if self.github_summary:
            _append_summary("\n".join([before] * bool(before) + [markdown(verdicts)] * bool(verdicts)))


class ComparisonFlags(GateFlags, frozen=True, kw_only=True):
    """What a comparison must not show, and the gates of B's runs; the default gates do not apply."""

    fail_if: FailIfs = None

    @property
    def judges(self) -> bool:
        """Whether anything is judged."""
        return bool(self.fail_if) or self.given

    def limits(self) -> GateSet | None:
        """The gates of B's runs.

        Raises:
            UsageError: a gate is invalid.
        """
        return self.read() if self.given else None

    def check(self, outlet: VerdictFlags, *, json_: bool) -> None:
        """Before the work, not after it.

        Raises:
            UsageError: verdicts are wanted and nothing is judged, a gate is invalid, or as in `VerdictFlags.check`.
        """
        outlet.check(json_=json_)
        self.limits()
        if self.judges:
            return
        for flag, given in (("--junit", outlet.junit is not None), ("--strict", outlet.strict)):
            if given:
                raise UsageError(f"{flag} is about verdicts, and nothing is judged", "give --fail-if slower, or --gate")


def show_comparison(
    compared: Compared,
    gating: ComparisonFlags,
    outlet: VerdictFlags,
    *,
    all_: bool = False,
    json_: bool = False,
    quiet: bool = False,
) -> int:
    """Show the comparison and its verdicts; returns the exit code, 0 where nothing is judged."""
    from comfyload.app.compare import suites_of, verdicts_on
    from comfyload.judge.gates.gate import exit_code
    from comfyload.report.comparison import comparison_json, comparison_page
    from comfyload.report.verdicts import render

    found = verdicts_on(compared, [condition.value for condition in gating.fail_if or []], gating.limits())
    page = comparison_page(compared.comparison, compared.names)
    outlet.write(found.verdicts, suites_of(compared), as_markdown(page, level=2))
    console = for_people(outlet.junit)
    document = comparison_json(compared.comparison, found.verdicts if gating.judges else None) if json_ else None
    show_page(page, console, document, quiet=quiet, all_=all_)
    if json_ or quiet:
        say_what_failed(found.verdicts, strict=outlet.strict)
    elif gating.judges:
        console.print()
        render(found.verdicts, console)
    return exit_code(found.verdicts, found.valid, strict=outlet.strict) if gating.judges else 0


def say_what_failed(verdicts: Sequence[GateVerdict], *, strict: bool) -> None:
    """A line on standard error for each gate because of which the exit code is not 0; where all is well, nothing."""
    from comfyload.report.verdicts import by_run, value_words

    unwanted = {"FAIL", "INCONCLUSIVE", *(["PASS*"] if strict else [])}
    several = len(by_run(verdicts)) > 1
    for verdict in verdicts:
        if verdict.verdict in unwanted:
            run = f"{verdict.run}: " if several else ""
            numbers = value_words(verdict) + (f", n {verdict.n}" if verdict.n else "")
            echo(visible(f"{verdict.verdict}  {run}{verdict.gate}  {numbers}. {verdict.why}"), err=True)


def _append_summary(text: str) -> None:
    name = os.environ["GITHUB_STEP_SUMMARY"]
    try:
        with Path(name).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text + "\n")
    except OSError as error:
        raise UsageError(f"cannot write {name}: {error.strerror or error}") from None
