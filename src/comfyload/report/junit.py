"""Verdicts for a CI system: as JUnit's XML, a suite for each run and a case for each gate."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from msgspec import Struct

from comfyload.judge.comparison.compare import Comparison
from comfyload.judge.gates.gate import GateVerdict
from comfyload.judge.numbers import number_of
from comfyload.judge.summary import Measured
from comfyload.record.model import Manifest
from comfyload.report.headline import headline
from comfyload.report.plan_text import load_words
from comfyload.report.verdicts import by_run, value_words

__all__ = ["Suite", "junit", "suite_of", "suite_of_comparison"]

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Suite(Struct, frozen=True, kw_only=True):
    """What a suite is of. `seconds`: by the wall clock; None: not known. `began`: ISO 8601, UTC."""

    seconds: float | None
    began: str | None
    properties: Sequence[tuple[str, str]]


def suite_of(measured: Measured) -> Suite:
    """How long the run lasted, what it was made with and on, and its estimates."""
    manifest = measured.manifest
    return Suite(
        seconds=_seconds(manifest),
        began=manifest.started_utc,
        properties=[*_made_by(manifest), ("run_directory", measured.path), *_estimates(measured)],
    )


def suite_of_comparison(found: Comparison, a: Sequence[Measured], b: Sequence[Measured]) -> Suite:
    """The time that the runs of both sides took together; properties are those of B's first run, B being judged."""
    lasted = [_seconds(run.manifest) for run in (*a, *b)]
    known = [seconds for seconds in lasted if seconds is not None]
    own = [("design", found.design), ("runs_a", ", ".join(found.runs_a)), ("runs_b", ", ".join(found.runs_b))]
    differs = [(f"differs.{one.key}", f"{one.a} | {one.b}") for one in found.differences]
    return Suite(
        seconds=sum(known) if len(known) == len(lasted) else None,
        began=min(run.manifest.started_utc for run in (*a, *b)),
        properties=[*own, *_made_by(b[0].manifest), *differs],
    )


def junit(verdicts: Sequence[GateVerdict], suites: Mapping[str, Suite] | None = None, *, strict: bool = False) -> str:
    """The document. FAIL is a failure, INCONCLUSIVE is skipped; with `strict` INCONCLUSIVE and PASS* are failures.

    `suites`: by the runs' names in `verdicts`. The time of a case is the duration that it judges, 0 where it judges
    none; that of a suite is how long its runs lasted. The whole has no time: runs of B may be in two suites.
    """
    failing = {"FAIL", "INCONCLUSIVE", "PASS*"} if strict else {"FAIL"}
    known = suites or {}
    root = ET.Element("testsuites", {"name": "comfyload", **_tally(verdicts, failing)})
    for run, given in by_run(verdicts).items():
        suite = ET.SubElement(root, "testsuite", {"name": _text(run), **_tally(given, failing)})
        suite.set("skipped", str(sum(_skips(verdict, failing) for verdict in given)))
        if run in known:
            _describe_suite(suite, known[run])
        for verdict in given:
            _case(suite, verdict, failing)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _describe_suite(element: ET.Element, suite: Suite) -> None:
    if suite.seconds is not None:
        element.set("time", _time(suite.seconds))
    if suite.began is not None:
        began = datetime.fromisoformat(suite.began).astimezone(UTC)
        element.set("timestamp", f"{began:%Y-%m-%dT%H:%M:%S}")
    properties = ET.SubElement(element, "properties")
    for name, value in suite.properties:
        ET.SubElement(properties, "property", name=_text(name), value=_text(value))


def _case(suite: ET.Element, verdict: GateVerdict, failing: set[str]) -> None:
    """`message` is what a reporter shows next to the name; the element's text has the numbers too."""
    duration = _judged_s(verdict)
    case = ET.SubElement(
        suite, "testcase", classname=_text(verdict.run), name=_text(verdict.gate), time=_time(duration or 0.0)
    )
    detail = _text(f"{verdict.verdict}: {value_words(verdict)}, n {verdict.n}. {verdict.why}")
    message = _text(f"{verdict.verdict}: {verdict.why}")
    if verdict.verdict in failing:
        ET.SubElement(case, "failure", type=verdict.verdict, message=message).text = detail
    elif _skips(verdict, failing):
        ET.SubElement(case, "skipped", message=message).text = detail
    else:
        ET.SubElement(case, "system-out").text = detail


def _skips(verdict: GateVerdict, failing: set[str]) -> bool:
    return verdict.verdict == "INCONCLUSIVE" and verdict.verdict not in failing


def _tally(verdicts: Sequence[GateVerdict], failing: set[str]) -> dict[str, str]:
    failures = sum(verdict.verdict in failing for verdict in verdicts)
    return {"tests": str(len(verdicts)), "failures": str(failures), "errors": "0"}


def _judged_s(verdict: GateVerdict) -> float | None:
    """The duration that a gate is about, in seconds; None: it is about something else, or none is known."""
    number = number_of(verdict.metric)
    of_time = (
        number is not None and number.measure == "s" and verdict.value is not None and math.isfinite(verdict.value)
    )
    return verdict.value if of_time else None


def _time(seconds: float) -> str:
    """Seconds as Surefire writes them: no exponent, three places."""
    return f"{max(seconds, 0.0):.3f}"


def _seconds(manifest: Manifest) -> float | None:
    if manifest.ended_utc is None:
        return None
    began, ended = datetime.fromisoformat(manifest.started_utc), datetime.fromisoformat(manifest.ended_utc)
    return (ended - began).total_seconds()


def _made_by(manifest: Manifest) -> Iterator[tuple[str, str]]:
    server = manifest.server
    gpus = [re.sub(r"^\w+:\d+ | : \w+$", "", str(device.get("name", ""))) for device in server.devices]
    yield "comfyload", manifest.tool
    yield "server", server.url
    yield "comfyui", server.comfyui_version or "unknown"
    yield "gpu", ", ".join(gpus) or "unknown"
    yield "workflow", ", ".join(f"{facts.name} ({facts.sha256[:12]})" for facts in manifest.workflows)
    yield "load", load_words(manifest.plan.load, manifest.plan.duration_s)


def _estimates(measured: Measured) -> Iterator[tuple[str, str]]:
    """The headline numbers of a report: value, interval and n, or why the value is withheld."""
    for one in headline(measured):
        rest = f" ({one.detail})" if one.detail else f" {one.why}"
        yield one.label.lower().replace(" ", "_"), f"{one.value}{rest}"


def _text(text: str) -> str:
    """Without the characters that XML cannot hold; the library escapes the rest."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
