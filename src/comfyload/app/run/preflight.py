"""The check before the first job: what the server would do with the graphs as they will be sent."""

from comfyload.app.run.inputs import Inputs, vary
from comfyload.app.run.options import RunOptions
from comfyload.comfy.examine import Described, preflight
from comfyload.comfy.wire.calls import Transport
from comfyload.record.model import Observation, Server
from comfyload.workflow import ObjectInfo
from comfyload.workflow.preflight import PreflightAnswer, PreflightFailed, as_sent, check, merged

FOLDER = "comfyload/preflight"
"""Stands for the run's own folder, which is not settled yet."""


class Beforehand:
    """What the server would do with the jobs of a run. `answers` are by the workflow's name."""

    def __init__(
        self, options: RunOptions, inputs: Inputs, info: ObjectInfo, described: Described, server: Server
    ) -> None:
        self._options = options
        self._inputs = inputs
        self._info = info
        self._described = described
        self._server = server
        self.answers: dict[str, PreflightAnswer] = {}

    async def look(self, transport: Transport) -> None:
        """Set `answers`; outputs that the server would drop are left out, if the options say so.

        Raises:
            UsageError: a value of the table does not fit its input, or a column is an input of no workflow.
        """
        self.answers = await self._look(transport)
        broken = {name: answer for name, answer in self.answers.items() if answer.left and answer.dropped}
        if self._options.drop_broken_outputs and broken:
            self._inputs.leave_out(
                {name: {out: answer.reason(out) for out in answer.dropped} for name, answer in broken.items()}
            )
            self.answers = await self._look(transport)

    def refuse(self) -> None:
        """Raises PreflightFailed where the server's worker would die of a job; with a preflight, also where the server
        would not run all of it.
        """
        if self.refused():
            raise PreflightFailed(self.answers)

    def refused(self) -> dict[str, PreflightAnswer]:
        """The answers for which `refuse` raises, by the workflow's name."""
        wrong = ("refused", "kills", "fails", "partly") if self._options.preflight else ("kills",)
        return {name: answer for name, answer in self.answers.items() if answer.verdict in wrong}

    def observations(self) -> list[Observation]:
        """What a reader of the run should know: outputs that were left out, and what the server may refuse.

        Without a preflight, problems that show without looking up files are noted all the same: some servers drop
        outputs silently.
        """
        left_out = [
            Observation(t=0.0, code="dropped_outputs", text=f"{name}: output {output} is left out: {why}")
            for name, outputs in self._inputs.dropped.items()
            for output, why in outputs.items()
        ]
        doubts = [
            Observation(t=0.0, code="preflight", text=f"{name}: {problem.text()}")
            for name, answer in self.answers.items()
            for problem in answer.problems
            if self._options.preflight or problem.kind != "missing_image"
        ]
        return left_out + doubts

    async def _look(self, transport: Transport) -> dict[str, PreflightAnswer]:
        table, plan, places = self._inputs.table, self._options.plan, list[str]()
        if table is not None:  # the rows of it that will be sent
            jobs = len(table.rows) if plan.jobs is None else (plan.jobs + plan.warmup) * plan.pages
            places = [table.place(row) for row in range(min(len(table.rows), jobs))]
        found = {}
        for variation in vary(self._options, self._inputs, self._info, FOLDER):
            sent = (as_sent(variation, index) for index in range(len(places) or 1))
            if self._options.preflight:
                answer = await preflight(transport, sent, self._described, self._server, places)
            else:
                classes, known, version = self._described.classes, self._described.known, self._server.version
                answer = merged([check(graph, classes, known, version=version) for graph in sent], places)
            found[variation.workflow.name] = answer
        return found
