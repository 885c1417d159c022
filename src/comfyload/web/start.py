"""What a page has done before a run starts, and its start: preflight, the plan as text, saved plans."""

import asyncio
import re
import shlex
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct, structs, to_builtins

from comfyload import clock
from comfyload.app.doctor import answer as answer_of
from comfyload.app.doctor import doctor, exit_code
from comfyload.app.run import repeat
from comfyload.app.run.options import RunOptions, WorkflowChoice, shareable, to_toml
from comfyload.comfy.address import parse_server, redacted
from comfyload.errors import ComfyloadError
from comfyload.gateway.fleet import ServerConfig
from comfyload.judge.gates.grammar import DEFAULT_GATES
from comfyload.report.plan_text import plan_words
from comfyload.visible import visible
from comfyload.web.answers import MOST_BODY, Refused, Route, answer
from comfyload.web.form import FILES, Filled, fields, fill, values_of
from comfyload.web.launch import Hold, Launcher
from comfyload.web.plans import PlanExists, Plans, SavedPlan, file_name
from comfyload.workflow import parse

PREFIX = "/comfyload/ui"
MOST_WORKFLOWS = 20
PREFLIGHTS = 2
"""Preflights at once; more wait."""
_VERDICTS = {0: "ready", 2: "refused", 3: "not ready", 4: "unreachable"}
_MULTILINE = ("preflight", "version")
"""Checks whose words have lines of ours; what comes from outside in them is made visible already."""

T = TypeVar("T", bound=Struct)


class WorkflowText(Struct, frozen=True, forbid_unknown_fields=True):
    """A workflow as its file has it."""

    name: str
    text: str
    weight: float = 1.0


class StartForm(Struct, frozen=True, forbid_unknown_fields=True):
    """A form as it was filled in. `options`: by the names of its fields."""

    server: str = ""
    workflows: list[WorkflowText] = []
    options: dict[str, Any] = {}


class PlanForm(StartForm, frozen=True, forbid_unknown_fields=True):
    """A form to be saved under a name."""

    name: str = ""
    replace: bool = False


class Starting:
    """The handlers. `servers`: those that are configured; no other is called. `hold`: of `Launcher`."""

    def __init__(
        self,
        runs: Path,
        servers: Sequence[ServerConfig],
        archive: Path | None = None,
        hold: Hold = lambda _run_id, _process: None,
        naming: Callable[[], Awaitable[list[str]]] | None = None,
    ) -> None:
        """`naming`: texts that name the files which runs may need again; None: no file is ever removed."""
        self._runs = runs
        self._servers = {server.name: server for server in servers}
        self._archive = archive
        self._plans = Plans(runs)
        files = re.escape(str(self._plans.folder / "files" / "_")[:-1])
        self._places = re.compile(rf"{files}[0-9a-f]+[/\\\\]")
        self._launcher = Launcher(runs, self._plans, archive, hold)
        self._preflights = asyncio.Semaphore(PREFLIGHTS)
        self._naming = naming

    def routes(self) -> list[Route]:
        return [
            ("GET", f"{PREFIX}/start", self._form),
            ("POST", f"{PREFIX}/preflight", self._preflight),
            ("POST", f"{PREFIX}/plan", self._plan),
            ("POST", f"{PREFIX}/runs", self._start),
            ("GET", f"{PREFIX}/starts/{{id}}", self._look),
            ("GET", f"{PREFIX}/plans", self._list),
            ("POST", f"{PREFIX}/plans", self._save),
            ("GET", f"{PREFIX}/plans/{{name}}", self._saved),
            ("POST", f"{PREFIX}/plans/{{name}}/delete", self._delete),
        ]

    async def _form(self, _: web.Request) -> web.Response:
        servers = [{"name": one.name, "url": redacted(one.url)} for one in self._servers.values()]
        form = {"fields": [to_builtins(field) for field in fields()], "servers": servers, "gates": list(DEFAULT_GATES)}
        return answer(form)

    async def _preflight(self, request: web.Request) -> web.Response:
        filled = await asyncio.to_thread(self._filled, await _body(request, StartForm))
        async with self._preflights:
            # In a thread with a loop of its own, because a large graph takes long to look at.
            with self._errors_shown():
                checks = await asyncio.to_thread(lambda: clock.run(doctor(filled.options, self._runs)))
        ready, sentence = answer_of(checks)
        return answer(
            {
                "verdict": _VERDICTS[exit_code(checks)],
                "word": "READY" if ready else "NOT READY",
                "look": "good" if ready else "bad",
                "sentence": self._shown(sentence),
                "checks": [
                    {
                        "name": check.name,
                        "status": check.status,
                        "found": self._shown(check.found if check.name in _MULTILINE else visible(check.found)),
                        "advice": self._shown(check.advice),
                        "about": check.about,
                    }
                    for check in checks
                ],
            }
        )

    async def _plan(self, request: web.Request) -> web.Response:
        filled = await asyncio.to_thread(self._filled, await _body(request, StartForm))
        return answer(self._described(filled))

    async def _start(self, request: web.Request) -> web.Response:
        form = await _body(request, StartForm)
        if not form.workflows:
            raise Refused(422, "no workflow is given", "drop a workflow's file on the page")
        filled = await asyncio.to_thread(self._filled, form)
        self._runs.mkdir(parents=True, exist_ok=True)
        found = await self._launcher.start(filled, form.server, self._servers[form.server].headers)
        self._launcher.tidy()
        if self._naming is not None:
            await asyncio.to_thread(self._plans.remove_unused, await self._naming(), now=time.time())
        return answer(to_builtins(found), 422 if found.state == "failed" else 201)

    async def _look(self, request: web.Request) -> web.Response:
        found = self._launcher.look(request.match_info["id"])
        if found is None:
            raise Refused(404, "no run was started under this id")
        return answer(to_builtins(found))

    async def _list(self, _: web.Request) -> web.Response:
        plans = await asyncio.to_thread(self._plans.saved)
        return answer({"folder": str(self._plans.folder), "plans": [self._in_list(plan) for plan in plans]})

    async def _save(self, request: web.Request) -> web.Response:
        form = await _body(request, PlanForm)
        filled = await asyncio.to_thread(self._filled, form)
        options, _ = shareable(filled.options)
        try:
            plan = self._plans.save(
                form.name, options, filled.gate_set, until_proven=filled.until_proven, replace=form.replace
            )
        except PlanExists as error:
            raise Refused(409, error.message, error.hint) from None
        return answer(self._in_list(plan), 201)

    async def _saved(self, request: web.Request) -> web.Response:
        plan = self._plans.find(request.match_info["name"])
        if plan is None:
            raise Refused(404, "there is no plan of this name")
        return answer(await asyncio.to_thread(self._whole, plan))

    async def _delete(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if not self._plans.delete(name):
            raise Refused(404, "there is no plan of this name")
        return answer({"deleted": name})

    # --- from a form to options, and back

    def _filled(self, form: StartForm) -> Filled:
        server = self._servers.get(form.server)
        if server is None:
            names = ", ".join(self._servers) or "none: give --server URL when you start the dashboard"
            raise Refused(404, f"no server is called {form.server[:80]!r}", f"there are {names}")
        if len(form.workflows) > MOST_WORKFLOWS:
            raise Refused(422, f"more than {MOST_WORKFLOWS} workflows", "make several runs of them")
        workflows = [self._kept(one) for one in form.workflows]
        twice = next((one.file for one in workflows if _stems(workflows).count(Path(one.file).stem) > 1), None)
        if twice is not None:
            raise Refused(422, f"two workflows are called {Path(twice).stem!r}", "give their files different names")
        headers = [f"{name}={value}" for name, value in server.headers.items()]
        with self._errors_shown():
            filled = fill(form.options, workflows, str(server.url), headers, self._plans.keep)
        options = structs.replace(filled.options, ca_file=server.ca_file, insecure=server.insecure)
        return structs.replace(filled, options=options)

    def _kept(self, given: WorkflowText) -> WorkflowChoice:
        """The workflow as a file, if it is one."""
        name = file_name(given.name)
        content = given.text.encode("utf-8", "surrogatepass")
        parse(content, Path(name).stem, name)
        if not 0 < given.weight <= 1e9:
            raise Refused(422, f"{name}: a weight is above 0, and at most 1e9", "leave the workflow out instead")
        return WorkflowChoice(file=str(self._plans.keep(name, content)), weight=given.weight)

    def _described(self, filled: Filled) -> dict[str, Any]:
        """The plan as `run --save-plan` writes it, and the command that does the same."""
        options, missing = shareable(filled.options)
        toml = to_toml(options)
        words = repeat.command(options)
        if options.plan.seed is not None:
            words += ["--seed", str(options.plan.seed)]
        gates = filled.gates
        words += [word for text in gates.gate or () for word in ("--gate", text)]
        words += [word for text in gates.expect or () for word in ("--expect", text)]
        words += ["--independent-failures"] if gates.independent_failures else []
        words += ["--until-proven"] if filled.until_proven else []
        words += ["--archive", str(self._archive)] if self._archive is not None and gates.gate else []
        return {"toml": toml, "command": shlex.join(words), "words": plan_words(options.plan), "missing": missing}

    def _in_list(self, plan: SavedPlan) -> dict[str, Any]:
        options = plan.options
        found: dict[str, Any] = {"name": plan.name, "saved_utc": plan.saved_utc, "problem": plan.problem}
        if options is None:
            return found | {"words": "", "server": "", "workflows": [], "gates": []}
        return found | {
            "words": plan_words(options.plan),
            "server": self._name_of(options),
            "workflows": _stems(options.workflows),
            "gates": [] if plan.gates is None else [gate.text for gate in plan.gates.gates],
        }

    def _whole(self, plan: SavedPlan) -> dict[str, Any]:
        """A saved plan as a form would be filled in with it."""
        found, options = self._in_list(plan), plan.options
        if options is None:
            return found | {"toml": "", "command": "", "options": {}}
        values, texts, problem = values_of(options), [], ""
        if options.servers or options.resolve_all:
            problem = "it is for several servers, which a page does not choose: comfyload run --plan"
        for choice in options.workflows:
            text = self._plans.text_of(choice.file)
            problem = problem or ("" if text is not None else f"{choice.file} is not among the files of this page")
            texts.append({"name": Path(choice.file).name, "text": text or "", "weight": choice.weight})
        for name in FILES:
            if name in values:
                text = self._plans.text_of(values[name])
                problem = problem or ("" if text is not None else f"{values[name]} is not among the files of this page")
                values[name] = {"name": Path(values[name]).name, "text": text or ""}
        if plan.gates is not None:
            values |= {"gate": [gate.text for gate in plan.gates.gates]}
            values |= {"expect": plan.gates.expected_errors} if plan.gates.expected_errors else {}
            values |= {"independent_failures": True} if plan.gates.independent_failures else {}
        values |= {"until_proven": True} if plan.until_proven else {}
        return found | {
            "problem": problem,
            "toml": to_toml(options),
            "command": shlex.join(plan.command),
            "options": values,
            "workflows": texts,
        }

    def _name_of(self, options: RunOptions) -> str:
        """The configured server that the plan is for; "": it is none of them."""
        if not options.server:
            return ""
        address = redacted(parse_server(options.server))
        return next((one.name for one in self._servers.values() if redacted(one.url) == address), "")

    def _shown(self, text: str) -> str:
        """The text without the folders of the workflows' files, which no reader has given."""
        return self._places.sub("", text)

    @contextmanager
    def _errors_shown(self) -> Iterator[None]:
        try:
            yield
        except ComfyloadError as error:
            raise Refused(422, self._shown(error.message), self._shown(error.hint)) from None


def _stems(workflows: Sequence[WorkflowChoice]) -> list[str]:
    return [Path(one.file).stem for one in workflows]


async def _body(request: web.Request, kind: type[T]) -> T:
    """The body of a call, which may be large."""
    if (request.content_length or 0) > MOST_BODY:
        raise Refused(413, f"more than {MOST_BODY >> 20} MiB in one call", "run such a workflow with comfyload run")
    body = await request.read()
    try:
        return await asyncio.to_thread(msgspec.json.decode, body, type=kind)
    except msgspec.ValidationError as error:
        raise Refused(400, f"the form is not one: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused(400, "the body is not JSON") from None
