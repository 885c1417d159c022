"""Verdicts on their way out: to people, to a CI system, and as an exit code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from comfyload.cli.flags import check_writable, echo
from comfyload.errors import UsageError
from comfyload.visible import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from comfyload.app.compare import Compared
    from comfyload.cli.flags import FailIf
    from comfyload.judge.gates.gate import GateVerdict
    from comfyload.judge.gates.grammar import GateSet
    from comfyload.report.junit import Suite

__all__ = ["GateOptions", "Outlet", "say_what_failed", "show_comparison"]


class Outlet(NamedTuple):
    """Where verdicts go besides the terminal. `strict`: what is not proven is not good enough."""

    junit: Path | None
    github_summary: bool
    strict: bool

    def check(self, *, json_: bool = False) -> None:
        """Before the work, not after it.

        Raises:
            UsageError: a file cannot be written, or this is not a step of GitHub Actions.
        """
        if self.junit is not None:
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


class GateOptions(NamedTuple):
    """What a comparison is held against: conditions that must not be, and gates of B's runs, if any."""

    fail_if: list[FailIf]
    gates: GateSet | None

    @classmethod
    def of(
        cls,
        fail_if: list[FailIf] | None,
        gate: list[str] | None,
        gates: Path | None,
        expect: list[str] | None,
        *,
        independent: bool,
    ) -> GateOptions:
        """Of the flags. Without a gate there are no gates: the defaults are for runs that are checked alone.

        Raises:
            UsageError: a gate is invalid.
        """
        from comfyload.app.check import gate_set

        chosen = gate_set(gate or [], gates, expect or [], independent=independent) if gate or gates else None
        return cls(fail_if or [], chosen)

    def check(self, outlet: Outlet) -> None:
        """Raises UsageError where verdicts are wanted and there is no condition and no gate."""
        if self.fail_if or self.gates is not None:
            return
        for flag, given in (("--junit", outlet.junit is not None), ("--strict", outlet.strict)):
            if given:
                raise UsageError(f"{flag} is about verdicts, and nothing is judged", "give --fail-if slower, or --gate")


def show_comparison(
    compared: Compared,
    chosen: GateOptions,
    outlet: Outlet,
    *,
    all_: bool = False,
    json_: bool = False,
    quiet: bool = False,
) -> int:
    """Show the comparison and the verdicts; returns the exit code, 0 where nothing was to be judged."""
    from comfyload.app.compare import suites_of, verdicts_on
    from comfyload.cli.flags import for_people
    from comfyload.judge.gates.gate import exit_code
    from comfyload.report.comparison import comparison_json, comparison_page
    from comfyload.report.console import Screen
    from comfyload.report.render.markdown import as_markdown
    from comfyload.report.render.terminal import render as render_page
    from comfyload.report.verdicts import render

    judged = bool(chosen.fail_if) or chosen.gates is not None
    found = verdicts_on(compared, [condition.value for condition in chosen.fail_if], chosen.gates)
    page = comparison_page(compared.comparison, compared.names)
    outlet.write(found.verdicts, suites_of(compared), as_markdown(page, level=2))
    if json_:
        verdicts = found.verdicts if judged else None
        Screen(soft_wrap=True, highlight=False).print_json(comparison_json(compared.comparison, verdicts))
    elif not quiet:
        console = for_people(outlet.junit)
        render_page(page, console, all=all_)
        if judged:
            console.print()
            render(found.verdicts, console)
    if json_ or quiet:
        say_what_failed(found.verdicts, strict=outlet.strict)
    return exit_code(found.verdicts, found.valid, strict=outlet.strict) if judged else 0


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
