"""Whether a run proves what its gates require, disproves it, or leaves it open.

Several gates: each is proven at 5 % on its own, and for all to pass falsely the worst of them must, so a pass of all
needs no correction (intersection-union test, Berger 1982). That one of many fails by chance does: the p-values of all
probabilistic gates of one call go through Holm's (1979) procedure before any of them is a FAIL. Facts and errors are no
part of it.
"""

from collections.abc import Iterable, Sequence

from msgspec import structs

from comfyload.judge.gates.against import against
from comfyload.judge.gates.grammar import Gate, GateSet
from comfyload.judge.gates.proof import SIDE
from comfyload.judge.gates.rules import RULES
from comfyload.judge.gates.unexpected import errors
from comfyload.judge.gates.verdict import VERDICTS, GateVerdict, RunError, Verdict, no_data
from comfyload.judge.numbers import ERRORS
from comfyload.judge.statistics.significance import holm
from comfyload.judge.summary import Measured

__all__ = ["GateVerdict", "RunError", "Verdict", "exit_code", "judge", "overall"]


def judge(
    gates: GateSet, measured: Measured, log_errors: Sequence[RunError] | None = None, baseline: Sequence[Measured] = ()
) -> list[GateVerdict]:
    """A verdict on each gate. `log_errors` None: no log was read.

    Raises:
        UsageError: an expected error is not a regular expression.
    """

    def alone(gate: Gate) -> GateVerdict:
        if gate.name == ERRORS:
            return errors(gate, measured, gates.expected_errors, log_errors)
        if gate.workflow and gate.workflow not in measured.summary.workflows:
            has = ", ".join(measured.summary.workflows)
            return no_data(gate, measured, f"this run has no workflow {gate.workflow}; it has {has}")
        return against(gate, measured, baseline) if gate.of_baseline else RULES[gate.number.kind](gate, measured)

    judged = [structs.replace(gate, independent=gates.independent_failures) for gate in gates.gates]
    return [_with_doubts(draft, measured) for draft in _together([alone(gate) for gate in judged])]


def overall(verdicts: Iterable[GateVerdict]) -> Verdict:
    """The worst of them; without any, nothing was shown."""
    given = [verdict.verdict for verdict in verdicts]
    return max(given, key=list(VERDICTS).index) if given else "INCONCLUSIVE"


def exit_code(verdicts: Sequence[GateVerdict], valid: bool, *, strict: bool) -> int:
    """1: a gate failed; 5: the run is not valid, or measured nothing; 3: undecided, with `strict` also not proven."""
    worst = overall(verdicts)
    if worst == "FAIL":
        return 1
    if not valid:
        return 5
    return 3 if worst == "INCONCLUSIVE" or (strict and worst == "PASS*") else 0


def _together(drafts: list[GateVerdict]) -> list[GateVerdict]:
    """The family of gates through Holm's procedure."""
    at = [number for number, draft in enumerate(drafts) if draft.p_fail is not None]
    out = list(drafts)
    for number, adjusted in zip(at, holm([drafts[number].p_fail or 0.0 for number in at]), strict=True):
        draft = structs.replace(drafts[number], p_fail=adjusted)
        if draft.verdict == "FAIL" and adjusted > SIDE:
            why = f"{draft.why} Alone it would fail; one of {len(at)} gates can do so by chance (Holm)."
            draft = structs.replace(draft, verdict="INCONCLUSIVE", why=why)
        out[number] = draft
    return out


def _with_doubts(draft: GateVerdict, measured: Measured) -> GateVerdict:
    """A run that is not valid never passes. One that was judged several times says what that costs."""
    looks = measured.manifest.looks
    if draft.p_fail is not None and len(looks) > 1 and draft.verdict in ("PASS", "FAIL"):
        text = f"{draft.why} Judged {len(looks)} times in the run: at the limit 10 % may be wrong by chance, not 5 %."
        draft = structs.replace(draft, why=text)
    codes = [finding.code for finding in measured.summary.findings if finding.level == "invalid"]
    if not codes or draft.verdict not in ("PASS", "PASS*"):
        return draft
    why = f"The run is not valid ({', '.join(codes)}), so it proves nothing. {draft.why}"
    return structs.replace(draft, verdict="INCONCLUSIVE", why=why, needs=None)
