"""`run --until-proven`: judges a run while it goes on, and stops it when its gates are decided."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import structs

from comfyload.judge.gates.gate import judge
from comfyload.judge.gates.grammar import GateSet
from comfyload.judge.gates.sequential import decided, early_abort, looks, strikes
from comfyload.judge.summary import Measured, measure
from comfyload.record.model import Manifest, Record
from comfyload.record.run import RunReader

DECIDED = "the gates are decided"


class StopRule:
    """Judges a run after some of its jobs, a few times at most, as every look is a chance to err.

    Made before the run, since it loads numpy and scipy, for which no job must wait.
    """

    def __init__(self, gates: GateSet, budget_jobs: int, baseline: Sequence[Measured] = ()) -> None:
        self._gates = gates
        self._baseline = baseline
        self._due = looks(budget_jobs)
        self._completed = self._failed = self._strikes = self._in_a_row = 0
        self._limits = [
            gate.limit
            for gate in gates.gates
            if gate.metric == "success_rate" and gate.op in (">=", ">") and not gate.of_baseline and gate.limit > 0
        ]

    def stop_reason(self, record: Record, manifest: Manifest, path: Path) -> str:
        """Why the run at `path` should end with this job, "" if it goes on; every look is added to `manifest.looks`.

        The run's files must hold all jobs so far, this one included.
        """
        if record.warmup or record.censored:
            return ""
        failed = record.execution.outcome != "completed"
        self._in_a_row = self._in_a_row + 1 if failed else 0
        self._completed += not failed
        self._failed += failed
        self._strikes += failed and (self._gates.independent_failures or strikes(self._in_a_row))
        if any(early_abort(self._completed, self._strikes, limit) == "fail" for limit in self._limits):
            return DECIDED
        ended = self._completed + self._failed
        if not self._due or ended < self._due[0]:
            return ""
        self._due.pop(0)
        manifest.looks.append(ended)
        reader = RunReader(path)
        so_far = reader.manifest
        so_far.end, so_far.looks = "decided", manifest.looks
        measured = measure(str(path), so_far, reader.lines())
        alone = structs.replace(self._gates, independent_failures=True)
        verdicts = (judge(gates, measured, baseline=self._baseline) for gates in (self._gates, alone))
        return DECIDED if decided(*verdicts) else ""
