"""Knows how verdicts are told to a CI system: as JUnit's XML, a suite for each run and a case for each gate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from comfyload.judge.gates.gate import GateVerdict
from comfyload.report.verdicts import by_run, value_words

__all__ = ["junit"]

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(verdicts: Sequence[GateVerdict], *, strict: bool = False) -> str:
    """The document. FAIL is a failure; INCONCLUSIVE, which shows nothing, is an error, and with `strict` PASS* too."""
    undecided = {"INCONCLUSIVE", "PASS*"} if strict else {"INCONCLUSIVE"}
    root = ET.Element("testsuites", {"name": "comfyload", **_tally(verdicts, undecided)})
    for run, given in by_run(verdicts).items():
        suite = ET.SubElement(root, "testsuite", {"name": _text(run), **_tally(given, undecided)})
        for verdict in given:
            case = ET.SubElement(suite, "testcase", classname=_text(run), name=_text(verdict.gate), time="0")
            told = f"{value_words(verdict)}, n {verdict.n}. {verdict.why}"
            if verdict.verdict == "FAIL":
                ET.SubElement(case, "failure", type="FAIL", message=_text(verdict.why)).text = _text(told)
            elif verdict.verdict in undecided:
                ET.SubElement(case, "error", type=verdict.verdict, message=_text(verdict.why)).text = _text(told)
            else:
                ET.SubElement(case, "system-out").text = _text(f"{verdict.verdict}: {told}")
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _tally(verdicts: Sequence[GateVerdict], undecided: set[str]) -> dict[str, str]:
    return {
        "tests": str(len(verdicts)),
        "failures": str(sum(verdict.verdict == "FAIL" for verdict in verdicts)),
        "errors": str(sum(verdict.verdict in undecided for verdict in verdicts)),
    }


def _text(text: str) -> str:
    """Without the characters that XML cannot hold; the library escapes the rest."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
