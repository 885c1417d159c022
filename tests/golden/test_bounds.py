"""Bounds, pauses and defaults of client, retries, load and gates: a change of one is a change for users.

What a bound protects from is tested elsewhere; that nobody moves it unawares is tested here.
"""

from __future__ import annotations

import importlib
import math

import msgspec
import pytest

from comfyload.comfy import gateway
from comfyload.comfy.timeouts import Timeouts
from comfyload.errors import UsageError
from comfyload.record.policy import Policy
from comfyload.retry.policy import decode, default

MIB = 1 << 20
BOUNDS: dict[str, dict[str, object]] = {
    "comfy.address": {"LONGEST": 1000},
    "comfy.client": {"MAX_SUBMITS": 48},
    "comfy.connection": {"SCRATCH_BYTES": MIB // 4, "MOST_HEAD_BYTES": MIB // 16, "FRAMING": 16, "MOST_INTERIM": 50},
    "comfy.connections": {"MAX_CONNECTIONS": 64, "KEEP_ALIVE_S": 60.0},
    "comfy.examine": {"DATE_SAMPLES": 6, "DATE_PAUSE_S": 0.17, "CREATE_TIME": (0, 3, 69)},
    "comfy.gateway": {"_LONGEST": 120, "_READ": 4096},
    "comfy.http": {"MAX_REDIRECTS": 5, "HEAD_BYTES": 16, "IDLE_S": 30.0, "REDIRECTS": (301, 302, 303, 307, 308)},
    "comfy.identify": {
        "MOST_FACTS": 1000,
        "LONGEST_FACT": 2000,
        "INTERRUPT_BY_ID": (0, 3, 57),
        "CLIENT_PROMPT_ID": (0, 3, 45),
        "JOBS_CANCEL": (0, 26, 0),
    },
    "comfy.inflight": {"UNKNOWN_KEPT": 4096, "UNKNOWN_LETTERS": 4 * MIB, "MOST_READINGS": 100},
    "comfy.incoming": {"PACKED_PIECE": 1024, "PIECE": MIB // 16},
    "comfy.poller": {"FIRST_PAUSE_S": 0.1, "LONGEST_PAUSE_S": 2.0, "AT_ONCE": 4},
    "comfy.reconcile": {"FIRST_PAUSE_S": 0.1, "LONGEST_PAUSE_S": 1.0},
    "comfy.reported": {"_LONGEST": 500, "MOST_FILES": 5000, "LONGEST_NAME": 4096},
    "comfy.room": {"POLL_S": 1.0},
    "comfy.socket": {"NEXT_ADDRESS_S": 0.25},
    "comfy.stream": {"RECONNECT_FIRST_S": 0.1, "RECONNECT_MOST_S": 5.0},
    "comfy.submit_error": {"LONGEST": 5000},
    "comfy.tracker": {"MOST_NODES": 10_000, "LONGEST_NAME": 1000, "LONGEST_TEXT": 20_000},
    "comfy.websocket": {"PING_SECONDS": 30.0, "PONG_SECONDS": 15.0, "HANDSHAKE_SECONDS": 60.0, "MOST_PARTS": 10_000},
    "comfy.wire.calls": {
        "MAX_BODY_BYTES": 48 * MIB,
        "MAX_FACTS_BYTES": MIB,
        "MAX_MESSAGE_BYTES": 32 * MIB,
        "MAX_FILE_BYTES": 128 * MIB,
        "MAX_DOWNLOAD_BYTES": 2048 * MIB,
    },
    "comfy.wire.lenient": {"MAX_VALUES": 500_000, "ROOMY_VALUES": 1_500_000, "MAX_LETTERS": 64 * MIB, "WIDEST": 2**63},
    "retry.attempt_log": {"LATER_IDS": 8},
    "retry.decide": {"SPILL_SWAPS": 3.0, "LOOK_AGAIN_S": (0.25, 2.0)},
    "retry.expected": {"HALF_LIFE_JOBS": 20},
    "retry.policy": {"RETRY_AFTER_MOST_S": 600.0, "FORMAT": 1},
    "retry.pool": {"TICK_S": 1.0, "SLOW_S": 0.5, "NO_TIME_S": 0.001},
    "load.clocks": {"EVERY_S": 0.5, "TRIES": 5, "NARROW_S": 20e-6},
    "load.log_lines": {"_DEEPEST": 3},
    "load.selfcheck": {"CANARY_S": 0.02},
    "judge.statistics.significance": {"BETWEEN_RUNS_SD": 0.04},
    "judge.gates.proof": {"SIDE": 0.05},
    "judge.gates.sequential": {
        "BUDGET_JOBS": 200,
        "_WORSE": 0.04,
        "_ERROR": 0.05,
        "_BURST": 10,
        "_SHARES": (0.3, 0.5, 0.75, 1.0),
    },
}

UNCHARGED = {"missing", "connect", "submit_unknown", "busy", "server_error", "lost"}
NEVER = {"validation", "too_large", "auth", "deterministic", "interrupted", "deadline", "fetch", "other"}
ELSEWHERE = {"missing", "connect", "busy", "server_error", "hung", "cuda"}
ATTEMPTS = {
    "connect": 50,
    "busy": 50,
    "submit_unknown": 5,
    "server_error": 5,
    "lost": 5,
    "hung": 2,
    "oom": 2,
    "cuda": 2,
}
AT_ONCE = {"missing", "lost", "hung", "oom", "cuda", "transient"}


def test_what_cloudflare_answers_by_itself_is_known() -> None:
    assert set(gateway._OF_CLOUDFLARE) == {520, 521, 522, 523, 524, 525, 526, 530}


@pytest.mark.parametrize("module", BOUNDS)
def test_a_bound_is_what_it_was(module: str) -> None:
    imported = importlib.import_module(f"comfyload.{module}")
    assert {name: getattr(imported, name) for name in BOUNDS[module]} == BOUNDS[module]


def test_the_timeouts_are_these() -> None:
    assert msgspec.to_builtins(Timeouts()) == {
        "job_s": None,
        "submit_s": 60.0,
        "confirm_s": 5.0,
        "cancel_s": 5.0,
        "silence_s": 1.0,
        "lost_s": 2.0,
        "unreachable_s": 120.0,
        "stalled_s": 60.0,
        "refused_s": math.inf,
    }
    assert Timeouts(job_s=10.0).for_submit == 10.0 and Timeouts(job_s=100.0).for_submit == 60.0


def test_the_default_policy_is_this() -> None:
    policy = msgspec.to_builtins(default())
    explained = policy.pop("explanations")
    assert set(explained) == {"attempts", "liveness_s", "admission.depth"}
    classes = policy.pop("classes")
    assert policy == {
        "format": 1,
        "deadline_s": None,
        "attempts": 3,
        "connect_s": 5.0,
        "submit_s": 30.0,
        "liveness_s": 600.0,
        "admission": {"depth": None},
        "backoff": {"base_s": 1.0, "cap_s": 15.0, "jitter": "full"},
        "budget": {"ratio": 1.0, "cap": 20.0},
        "breaker": {"failures": 3, "open_s": 5.0, "open_max_s": 60.0},
        "cancel": True,
        "lookup": True,
        "scores": [],
        "inputs": {},
    }
    assert {name for name, rule in classes.items() if not rule["retry"]} == NEVER
    assert {name for name, rule in classes.items() if not rule["charged"]} == UNCHARGED
    assert {name for name, rule in classes.items() if rule["elsewhere"]} == ELSEWHERE
    assert {name: rule["attempts"] for name, rule in classes.items() if rule["attempts"]} == ATTEMPTS
    assert {name for name, rule in classes.items() if rule["free_memory"]} == {"oom"}
    assert {name for name, rule in classes.items() if rule["delay"] == "none"} == AT_ONCE
    assert {name for name, rule in classes.items() if rule["delay"] == "retry_after"} == {"busy"}
    assert all(rule["why"] for rule in classes.values())


@pytest.mark.parametrize(
    "wrong",
    [
        b'{"deadline_s": 0}',
        b'{"attempts": 0}',
        b'{"connect_s": 0}',
        b'{"submit_s": 0}',
        b'{"liveness_s": 0}',
        b'{"format": 0}',
        b'{"format": 2}',
        b'{"admission": {"depth": -1}}',
        b'{"backoff": {"base_s": -1}}',
        b'{"budget": {"ratio": -0.1}}',
        b'{"budget": {"cap": -0.1}}',
        b'{"breaker": {"failures": 0}}',
        b'{"breaker": {"open_s": -1}}',
        b'{"no_such_field": 1}',
        b'{"breaker": {"no_such_field": 1}}',
        b'{"backoff": {"no_such_field": 1}}',
        b'{"budget": {"no_such_field": 1}}',
        b'{"admission": {"no_such_field": 1}}',
        b'{"classes": {"oom": {"retry": true, "no_such_field": 1}}}',
        b'{"classes": {"oom": {"retry": true, "attempts": 0}}}',
        b'{"scores": [{"scenario": "a", "policy": "b", "success": 1, "no_such_field": 1}]}',
    ],
)
def test_a_policy_outside_its_bounds_is_refused(wrong: bytes) -> None:
    with pytest.raises(UsageError):
        decode(wrong)


def test_a_policy_at_its_bounds_is_read() -> None:
    text = b'{"deadline_s": 0.5, "attempts": 1, "admission": {"depth": 0}, "budget": {"ratio": 0, "cap": 0}}'
    read = msgspec.json.decode(text, type=Policy)
    assert (read.deadline_s, read.attempts, read.admission.depth, read.budget.cap) == (0.5, 1, 0, 0.0)
