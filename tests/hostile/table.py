"""All scenarios, by name: a route of ComfyUI times a malice, where that composes, and those that are one of a kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tests.hostile import malice, streams
from tests.hostile.server import Act, Call, Scenario, World

__all__ = ["QUICK", "scenarios"]

NO_SERVER = (4,)
GOES_ON = (0,)
MAY_FAIL = (0, 5)
HARD = ("strangers", "large_message", "large_objects", "large_binary")
"""What takes longer to hear out than the jobs have time."""

REPORTED = ("no_json", "odd_json", "deep", "junk_flood")
UNREAD = ("The server sent what cannot be read",)
DOCTOR = (0, 2, 3)
CONNECT = (0, 1)

ROUTES: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "system_stats": ("/system_stats", {"run": (0, 4), "doctor": (0, 3, 4), "resume": (0, 4), "connect": (0, 4)}),
    "POST prompt": ("the reply to POST /prompt", {"run": MAY_FAIL, "resume": MAY_FAIL, "connect": CONNECT}),
    "history": ("/history/ID", {"run": MAY_FAIL, "resume": MAY_FAIL, "connect": CONNECT}),
    "object_info": ("/object_info", {"run": (0, 2), "doctor": DOCTOR, "connect": CONNECT}),
    "GET prompt": ("GET /prompt", {"run": (0, 2), "doctor": DOCTOR}),
    "probe_events": ("the probe's rows", {"run": GOES_ON}),
    "probe_clock": ("the probe's clock", {"run": GOES_ON}),
    "probe_environment": ("the probe's facts", {"run": GOES_ON}),
    "features": ("/features", {"run": GOES_ON}),
    "job": ("/api/jobs/ID", {"resume": MAY_FAIL}),
    "GET queue": ("/queue", {"doctor": DOCTOR}),
    "upload": ("the reply to an upload", {"run": (0, 2)}),
}
"""By route: what it is called, and the exit codes that are right where its reply is malicious."""

THOROUGH = ("system_stats", "POST prompt", "history", "object_info")
FEWER = (
    "null",
    "cut",
    "fields_list",
    "fields_object",
    "nan",
    "huge",
    "digits",
    "latin1",
    "halves",
    "controls",
    "deep",
    "deep_middle",
    "many",
    "pad_objects",
)

WIRED: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "*": ("every reply", {"run": (2, 4), "doctor": (0, 2, 3, 4)}),
    "history": ("/history/ID", {"run": MAY_FAIL}),
    "POST prompt": ("the reply to POST /prompt", {"run": MAY_FAIL, "connect": CONNECT}),
    "view": ("/view", {"run": MAY_FAIL, "connect": CONNECT}),
}
SLOW = ("half_then_silence", "silence", "drip", "drip_head")
"""Those that take as long as our patience lasts."""

HEAVY = (
    "endless_body",
    "endless_chunked",
    "endless_headers",
    "gzip_bomb",
    "deflate_bomb",
    "continues",
    "many_headers",
    "bad_chunk_size",
    "binary",
    "half_then_reset",
    "two_replies",
    "switching",
    "bad_gzip",
    "http09",
    "status_999",
)
"""Those that are tried on every route."""


def scenarios() -> dict[str, Scenario]:
    """By name."""
    return {one.name: one for one in (*_bodies(), *_wires(), *_statuses(), *_streams(), *_own())}


def _slug(route: str) -> str:
    return route.replace(" ", "_").replace("*", "all")


def _bodies() -> Iterator[Scenario]:
    for route, (called, codes) in ROUTES.items():
        for name, (what, make) in malice.BODIES.items():
            if route not in THOROUGH and name not in FEWER:
                continue
            expected = codes if name in FEWER else {"run": codes["run"]}
            yield Scenario(
                name=f"{_slug(route)}-{name}",
                what=f"{called}: {what}",
                acts={route: malice.body(make)},
                codes=expected,
                unreadable=route == "history",
                arguments=("--upload", "in.png") if route == "upload" else (),
            )


def _wires() -> Iterator[Scenario]:
    for route, (called, codes) in WIRED.items():
        for name, (what, act) in malice.WIRE.items():
            if route in ("POST prompt", "view") and name not in HEAVY:
                continue
            expected = codes if name in HEAVY else {"run": codes["run"]}
            if name == "two_replies":  # the second comes when the first is read
                expected = dict.fromkeys(expected, (0, 1, 2, 4, 5))
            yield Scenario(
                name=f"{_slug(route)}-{name}",
                what=f"{called}: {what}",
                acts={route: act},
                codes=expected,
                bound_s=200.0 if name in SLOW else 120.0,
            )


def _statuses() -> Iterator[Scenario]:
    for status in malice.STATUSES:
        body = b"no"
        headers = {"Location": "/elsewhere"} if 300 <= status < 400 else {"Retry_After": "9" * 400}
        every: dict[str, tuple[int, ...]] = {"run": (2, 4)}
        if status % 100 in (0, 1, 4, 13, 29):
            every |= {"doctor": (0, 3, 4), "connect": (4,)}
        yield Scenario(
            name=f"all-{status}",
            what=f"every reply: HTTP {status}",
            acts={"*": malice.status(status, body, **headers)},
            codes=every,
        )
        if status % 100 in (0, 1, 4, 13, 29):
            yield Scenario(
                name=f"POST_prompt-{status}",
                what=f"the reply to POST /prompt: HTTP {status}",
                acts={"POST prompt": malice.status(status, body, **headers)},
                codes={"run": (5,), "connect": (1,)},
            )


def _streams() -> Iterator[Scenario]:
    for name, (what, greet) in streams.GREETINGS.items():
        codes: dict[str, tuple[int, ...]] = {
            "run": MAY_FAIL if "queue" in name or "flood" in name or name in HARD else GOES_ON
        }
        if len(name) % 4 == 0:
            codes |= {"doctor": (0,), "connect": CONNECT}
        yield Scenario(
            name=f"ws-{name}", what=f"/ws: {what}", greet=greet, codes=codes, says=UNREAD if name in REPORTED else ()
        )
    for name, (what, act) in streams.HANDSHAKES.items():
        yield Scenario(name=f"ws-{name}", what=f"/ws: {what}", acts={"ws": act}, codes={"run": GOES_ON, "doctor": (0,)})
    for name in (
        "silence",
        "reset",
        "headers_without_end",
        "endless_headers",
        "binary",
        "status_999",
        "continues",
        "drip_head",
    ):
        if name in malice.WIRE:
            what, act = malice.WIRE[name]
            yield Scenario(
                name=f"ws-{name}",
                what=f"/ws: {what}",
                acts={"ws": act},
                codes={"run": GOES_ON, "doctor": (0,)},
                bound_s=90.0,
            )
    for name, (what, job) in streams.JOBS.items():
        yield Scenario(
            name=f"events-{name}",
            what=f"events: {what}",
            job=job,
            codes={"run": MAY_FAIL} | ({"resume": MAY_FAIL, "connect": CONNECT} if len(name) % 4 == 0 else {}),
        )


# --- one of a kind


def _with_outputs(outputs: Any) -> Act:
    async def act(call: Call) -> None:
        answer = call.good()
        for entry in answer.values():
            entry["outputs"] = outputs
        await call.reply(200, json.dumps(answer).encode())

    return act


def _with_messages(*messages: Any) -> Act:
    async def act(call: Call) -> None:
        answer = call.good()
        for entry in answer.values():
            entry["status"]["messages"] = [*entry["status"]["messages"], *messages]
        await call.reply(200, json.dumps(answer).encode())

    return act


async def _same_id(call: Call) -> None:
    """Every prompt gets one and the same id."""
    call.good()
    await call.reply(200, json.dumps({"prompt_id": "the-only-one", "number": 1, "node_errors": {}}).encode())


async def _escaped_id(call: Call) -> None:
    call.good()
    await call.reply(200, json.dumps({"prompt_id": f"a/../../{malice.CONTROLS}?x#", "number": 1}).encode())


async def _refused(call: Call) -> None:
    """A refusal in the worst of words."""
    errors = {
        malice.CONTROLS: {"class_type": malice.CONTROLS, "errors": [{"message": malice.CONTROLS, "details": "\udce9"}]}
    }
    body = {"error": {"type": malice.CONTROLS, "message": malice.CONTROLS, "details": "\udce9"}, "node_errors": errors}
    await call.reply(400, json.dumps(body).encode())


async def _refused_oddly(call: Call) -> None:
    await call.reply(400, b'{"error":{"type":5,"message":["x"],"details":{}},"node_errors":[[],{"a":NaN}]}')


async def _hops(call: Call) -> None:
    """A redirect to itself."""
    await call.reply(302, b"", Location=f"/{call.world.scenario.name}~run/view?{call.query}x")


async def _probe_endless(call: Call) -> None:
    after = int(call.query.partition("after=")[2].partition("&")[0] or 0)
    rows = [{"event": "x", "seq": after + n, "mono_s": 1e9, "pad": "y" * 200} for n in range(1, 251)]
    await call.reply(200, json.dumps({"boot": "b1", "next": after + 250, "rows": rows}).encode())


async def _probe_restarts(call: Call) -> None:
    call.world.requests.append("x")
    await call.reply(
        200,
        json.dumps({"boot": f"b{len(call.world.requests)}", "next": 1, "rows": [], "mono_s": 1.0, "seq": 1}).encode(),
    )


async def _old(call: Call) -> None:
    """A server from before /api/jobs, of version 0.3.64."""
    stats = World(call.world.scenario)._system_stats(call)
    stats["system"]["comfyui_version"] = "0.3.64"
    await call.reply(200, json.dumps(stats).encode())


def _redirect(location: str, status: int = 302) -> Act:
    return malice.status(status, b"", Location=location)


LOCATIONS = {
    "nowhere": "",
    "no_url": "http://[::1",
    "no_scheme": "javascript:alert(1)",
    "file": "file:///etc/passwd",
    "controls": "/\x1b[2J\xff",
    "user": "http://user:pass@127.0.0.1:1/",
    "long": "/" + "a" * 7000,
    "port": "http://127.0.0.1:99999/",
}


def _own() -> Iterator[Scenario]:
    run = {"run": MAY_FAIL, "connect": CONNECT}
    names = [{"filename": f"{n}.png", "subfolder": "", "type": "output"} for n in range(50_000)]
    odd_names = [
        {"filename": malice.CONTROLS, "subfolder": "\udce9", "type": "\x1b"},
        {"filename": "x" * 100_000},
        {"filename": 5},
        {"filename": "../../etc/passwd", "subfolder": ["x"], "type": None},
    ]
    for name, what, outputs in (
        ("many_files", "fifty thousand files", {"3": {"images": names}}),
        ("odd_names", "files of odd names", {"3": {"images": odd_names}}),
        ("many_nodes", "fifty thousand output nodes", {str(n): {"text": ["x"]} for n in range(50_000)}),
        ("many_keys", "an output of fifty thousand kinds", {"3": {f"k{n}\x1b": [n] for n in range(50_000)}}),
        ("long_text", "an output of 20 MiB of text", {"3": {"text": ["y" * (20 << 20)]}}),
        (
            "odd_outputs",
            "outputs of every type",
            {
                "1": 5,
                "2": None,
                "3": {"images": 7, "gifs": "x.gif", "text": [[["a"]]], "animated": {"a": 1}},
                "": {"": [{}]},
            },
        ),
    ):
        yield Scenario(
            name=f"outputs-{name}",
            what=f"a history entry with {what}",
            acts={"history": _with_outputs(outputs)},
            codes=run,
            bound_s=60.0,
        )
    for name, what, messages in (
        (
            "odd",
            "messages of every type",
            [
                5,
                None,
                "x",
                [],
                ["x"],
                ["execution_error", None],
                [None, {}],
                ["execution_cached", {"nodes": 5}],
                [["a"], 1],
                {"execution_success": 1},
            ],
        ),
        ("cached_object", "cached nodes as an object", [["execution_cached", {"nodes": {"a": 1}}]]),
        ("cached_deep", "cached nodes as nested lists", [["execution_cached", {"nodes": [[[["a"]]], {"b": 5}, None]}]]),
        (
            "error_numbers",
            "an error whose words are numbers",
            [["execution_error", {"timestamp": 5, "exception_message": 5, "exception_type": {"x": 1}, "node_id": 7}]],
        ),
        ("many", "a hundred thousand messages", [["execution_start", {"timestamp": 1}]] * 100_000),
        (
            "many_errors",
            "an error with 5 MiB of words",
            [["execution_error", {"timestamp": 5, "exception_message": malice.CONTROLS * 200_000}]],
        ),
    ):
        yield Scenario(
            name=f"messages-{name}",
            what=f"a history entry with {what}",
            acts={"history": _with_messages(*messages)},
            codes=run,
        )
    yield Scenario(
        name="submit-same_id", what="every prompt gets the same id", acts={"POST prompt": _same_id}, codes=run
    )
    yield Scenario(
        name="submit-escaped_id",
        what="ids of slashes and escape sequences",
        acts={"POST prompt": _escaped_id},
        codes=run,
    )
    yield Scenario(
        name="submit-refused",
        what="a refusal in escape sequences",
        acts={"POST prompt": _refused},
        codes={"run": (5,), "connect": (1,)},
    )
    yield Scenario(
        name="submit-refused_oddly",
        what="a refusal of wrong types",
        acts={"POST prompt": _refused_oddly},
        codes={"run": (5,), "connect": (1,)},
    )
    yield Scenario(name="view-loop", what="/view redirects to itself", acts={"view": _hops}, codes=run)
    for name, location in LOCATIONS.items():
        yield Scenario(
            name=f"view-to_{name}", what=f"/view redirects to {name}", acts={"view": _redirect(location)}, codes=run
        )
        yield Scenario(
            name=f"all-to_{name}",
            what=f"every reply redirects to {name}",
            acts={"*": _redirect(location)},
            codes={"run": (4,)},
        )
    yield Scenario(
        name="probe-endless",
        what="rows of the probe without end",
        acts={"probe_events": _probe_endless},
        codes={"run": GOES_ON},
    )
    yield Scenario(
        name="probe-restarts",
        what="another process at each look",
        acts={"probe_events": _probe_restarts, "probe_clock": _probe_restarts},
        codes={"run": GOES_ON},
    )
    for name, (what, make) in malice.BODIES.items():
        if name in FEWER:
            acts = {"system_stats": _old, "GET queue": malice.body(make), "job": malice.status(404)}
            yield Scenario(
                name=f"old_queue-{name}",
                what=f"an old server's /queue: {what}",
                acts=acts,
                codes={"resume": MAY_FAIL, "doctor": DOCTOR},
            )
    for name in ("endless_body", "gzip_bomb", "endless_chunked", "drip"):
        what, act = malice.WIRE[name]
        acts = dict.fromkeys(
            ("GET prompt", "features", "object_info", "probe_clock", "history", "job", "GET queue"), act
        )
        yield Scenario(
            name=f"chorus-{name}",
            what=f"all replies but the first at once: {what}",
            acts=acts,
            codes={"run": (0, 2, 5), "doctor": DOCTOR},
            arguments=("-n", "8", "-c", "8"),
            bound_s=150.0,
        )


QUICK = (
    "system_stats-digits",
    "system_stats-latin1",
    "system_stats-deep",
    "system_stats-controls",
    "POST_prompt-latin1",
    "POST_prompt-fields_list",
    "history-latin1",
    "history-deep",
    "history-huge",
    "history-fields_object",
    "history-pad_objects",
    "object_info-fields_list",
    "object_info-huge",
    "probe_events-huge",
    "GET_prompt-huge",
    "features-deep",
    "all-gzip_bomb",
    "all-endless_body",
    "all-continues",
    "all-many_headers",
    "all-302",
    "view-endless_chunked",
    "view-to_user",
    "ws-deep",
    "ws-endless_fragments",
    "ws-strangers",
    "ws-queue_huge",
    "events-wrong_cached",
    "events-node_flood",
    "events-stamps_wide",
    "submit-same_id",
    "outputs-many_files",
)
"""Some of each kind."""


def renamed(scenario: Scenario, name: str) -> Scenario:
    return replace(scenario, name=name)
