"""The policy as a file, its waits, its classes, its budget and its breaker."""

from __future__ import annotations

from random import Random
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyload.comfy.submit_error import classify_refusal
from comfyload.errors import UsageError
from comfyload.record.model import Execution, Failure, FailureKind
from comfyload.record.policy import Admission, Backoff, Breaker, Budget, FailureClass, Policy, Rule
from comfyload.retry.breaker import CircuitBreaker
from comfyload.retry.classify import KnownFailures, classify, never_sent
from comfyload.retry.decide import RetryBudget
from comfyload.retry.expected import ExpectedTimes
from comfyload.retry.policy import RULES, decode, default, encode, rule_of, wait_s


def test_every_class_has_a_rule_and_every_kind_a_class() -> None:
    assert set(RULES) == set(get_args(FailureClass))
    for kind in get_args(FailureKind):
        assert classify(Execution(outcome="failed", failure=Failure(kind=kind))) in RULES


def test_a_policy_comes_back_from_its_file_as_it_was() -> None:
    policy = default(90.0)
    assert decode(encode(policy)) == policy and decode(b"{}") == Policy()
    assert "$defs" in msgspec.json.schema(Policy)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b'{"admission": {"depth": -1}}', "$.admission.depth"),
        (b'{"attempts": 0}', "$.attempts"),
        (b'{"clases": {}}', "clases"),
        (b'{"classes": {"ooom": {"retry": true}}}', "ooom"),
        (b'{"deadline_s": 0}', "$.deadline_s"),
        (b'{"format": 2}', "$.format"),
        (b"[]", "object"),
        (b'{"attempts": ', "truncated"),
    ],
)
def test_a_policy_that_cannot_be_names_the_place(content: bytes, place: str) -> None:
    with pytest.raises(UsageError) as caught:
        decode(content)
    assert place in str(caught.value)


@pytest.mark.parametrize("class_", ["validation", "too_large", "auth", "deterministic", "interrupted", "deadline"])
def test_some_classes_are_never_tried_again(class_: FailureClass) -> None:
    assert wait_s(default(), class_, 1, 0.0, 0.5) is None


def test_backoff_doubles_up_to_its_cap_and_jitter_is_full() -> None:
    policy = Policy(backoff=Backoff(base_s=1.0, cap_s=15.0))
    assert [wait_s(policy, "connect", n, 0.0, 0.999999) for n in range(1, 7)] == pytest.approx(
        [1, 2, 4, 8, 15, 15], rel=1e-5
    )
    assert wait_s(policy, "connect", 5, 0.0, 0.0) == 0.0
    fixed = Policy(backoff=Backoff(base_s=1.0, cap_s=15.0, jitter="none"))
    assert wait_s(fixed, "connect", 3, 0.0, 0.1) == 4.0


def test_retry_after_is_never_undercut() -> None:
    waits = [wait_s(Policy(), "busy", 1, 0.0, u, retry_after_s=10.0) for u in (0.0, 0.5, 0.999)]
    assert waits[0] == 10.0 and all(wait is not None and 10.0 <= wait <= 15.0 for wait in waits)
    assert wait_s(Policy(deadline_s=30.0), "busy", 1, 21.0, 0.0, retry_after_s=10.0) is None


def test_only_charged_failures_count_against_the_policys_attempts() -> None:
    policy = Policy(attempts=2)
    assert wait_s(policy, "connect", 10, 0.0, 0.5, charged=0) is not None
    assert wait_s(policy, "transient", 1, 0.0, 0.5, charged=1) == 0.0
    assert wait_s(policy, "transient", 1, 0.0, 0.5, charged=2) is None
    assert wait_s(policy, "oom", 2, 0.0, 0.5, charged=2) is None
    own = Policy(classes={"oom": Rule(retry=False)})
    assert wait_s(own, "oom", 1, 0.0, 0.5) is None and rule_of(own, "lost") == RULES["lost"]


@given(
    class_=st.sampled_from(get_args(FailureClass)),
    attempt=st.integers(1, 100),
    elapsed=st.floats(0, 1000),
    u=st.floats(0, 1, exclude_max=True),
    after=st.none() | st.floats(0, 1000),
    deadline=st.none() | st.floats(0.1, 1000),
)
def test_no_wait_passes_the_deadline_or_is_negative(
    class_: FailureClass, attempt: int, elapsed: float, u: float, after: float | None, deadline: float | None
) -> None:
    wait = wait_s(default(deadline), class_, attempt, elapsed, u, after)
    assert wait is None or (wait >= 0.0 and (deadline is None or elapsed + wait < deadline))


def failed(kind: FailureKind, **more: Any) -> Execution:
    return Execution(outcome="failed", failure=Failure(kind=kind, **more))


@pytest.mark.parametrize(
    ("execution", "class_"),
    [
        (Execution(outcome="completed"), None),
        (failed("http", status=429), "busy"),
        (failed("server_error", status=503), "busy"),
        (failed("server_error", status=502), "connect"),
        (failed("server_error", status=500), "server_error"),
        (failed("http", status=404), "other"),
        (failed("execution_error", type="ValueError"), "deterministic"),
        (
            failed("execution_error", type="RuntimeError", message="mat1 and mat2 shapes cannot be multiplied"),
            "deterministic",
        ),
        (failed("execution_error", type="RuntimeError", message="timed out"), "transient"),
        (failed("execution_error", type="ConnectionError"), "transient"),
        (failed("validation", message="Value not in list: ckpt_name: 'x' not in []"), "missing"),
        (failed("validation", message="Custom validation failed for node: image - Invalid image file: x"), "missing"),
        (failed("missing_node"), "missing"),
        (Execution(outcome="timed_out", failure=Failure(kind="hung")), "hung"),
        (Execution(outcome="lost"), "lost"),
    ],
)
def test_what_an_execution_ended_in(execution: Execution, class_: FailureClass | None) -> None:
    assert classify(execution) == class_


def test_an_id_is_used_again_only_if_no_server_had_it() -> None:
    lost = Execution(outcome="lost", failure=Failure(kind="lost"), server_state_after="absent")
    assert never_sent(failed("connect")) and never_sent(failed("server_error", status=500)) and never_sent(lost)
    assert not never_sent(msgspec.structs.replace(lost, started=1.0))
    assert not never_sent(msgspec.structs.replace(lost, server_state_after="unknown"))
    assert not never_sent(failed("execution_error")) and not never_sent(failed("partial_validation", status=200))


def test_a_failure_met_twice_comes_again_unless_a_job_got_past_it() -> None:
    seen, failure = KnownFailures(), Failure(kind="execution_error", type="RuntimeError", node_class="Upscale")
    assert not seen.deterministic("g", "a", failure) and not seen.deterministic("g", "a", failure)
    assert seen.deterministic("g", "b", failure) and not seen.deterministic("other", "b", failure)
    seen.passed("g", failure)
    assert not seen.deterministic("g", "c", failure)


def test_the_budget_is_full_at_first_and_filled_by_jobs() -> None:
    bucket = RetryBudget(Budget(ratio=0.5, cap=2.0))
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    bucket.first()
    assert not bucket.take()
    bucket.first()
    assert bucket.take() and not bucket.take()


def test_the_breaker_opens_for_longer_each_time_and_tries_one_job() -> None:
    now = 0.0
    circuit = CircuitBreaker(Breaker(failures=2, open_s=4.0, open_max_s=20.0), Random(1).random)
    circuit.failed(now)
    circuit.succeeded(now)
    circuit.failed(now)
    assert circuit.state(now) == "closed"
    circuit.failed(now)
    assert circuit.state(now) == "open"
    for least, most in ((2, 6), (4, 12), (8, 20), (16, 20), (20, 20)):
        opened = now
        while circuit.state(now) == "open":
            now += 0.1
        assert least - 0.2 <= now - opened <= most + 0.2
        circuit.trial("a")
        assert circuit.state(now) == "half_open"
        circuit.failed(now)
        assert circuit.state(now) == "open"
    assert circuit.broken_s(now) == now
    circuit.rest(50.0, now)
    now += 51.0
    circuit.trial("b")
    circuit.gone("a")
    assert circuit.state(now) == "half_open", "what becomes of other jobs does not end the trial"
    circuit.gone("b")
    assert circuit.state(now) == "due"
    circuit.succeeded(now)
    assert circuit.state(now) == "closed" and circuit.broken_s(now) == 0.0


def test_a_pause_that_the_server_asked_for_is_kept_whatever_completes_there() -> None:
    circuit = CircuitBreaker(Breaker(), lambda: 0.5)
    circuit.rest(30.0, 0.0)
    circuit.succeeded(10.0)
    assert (circuit.state(29.0), circuit.resting, circuit.broken_s(29.0)) == ("open", True, 0.0)
    circuit.rest(5.0, 10.0)
    assert circuit.state(29.0) == "open" and circuit.state(31.0) == "due", "a shorter one does not shorten it"
    circuit.succeeded(31.0)
    assert (circuit.state(31.0), circuit.resting) == ("closed", False)
    circuit.trip(40.0)
    assert (circuit.state(40.0), circuit.resting) == ("open", False)
    circuit.succeeded(41.0)
    assert circuit.state(41.0) == "closed", "one for its failures is over as soon as a job completes"
    circuit.trip(50.0)
    assert (circuit.state(54.9), circuit.state(55.0)) == ("open", "due"), "and the next is as short as the first"


def test_a_server_that_is_back_is_left_alone_again_by_its_next_failure() -> None:
    connections = 1
    circuit = CircuitBreaker(Breaker(failures=3), lambda: 0.5, lambda: connections)
    circuit.trip(0.0)
    assert circuit.state(1.0) == "open"
    connections = 2
    assert circuit.state(1.0) == "due"
    circuit.failed(1.0)
    assert circuit.state(1.0) == "open" and circuit.state(10.9) == "open" and circuit.state(11.0) == "due"


@pytest.mark.parametrize(
    ("class_", "more", "state"),
    [
        ("hung", {}, "open"),
        ("cuda", {}, "open"),
        ("lost", {"unreachable": True}, "open"),
        ("lost", {}, "due"),
        ("deadline", {}, "due"),
        ("other", {}, "due"),
        ("connect", {}, "open"),
        ("connect", {"own_fault": True}, "due"),
        ("submit_unknown", {}, "open"),
        ("server_error", {}, "open"),
        ("busy", {}, "open"),
        ("busy", {"retry_after_s": 0.0}, "due"),
        ("transient", {}, "closed"),
        ("validation", {}, "closed"),
        (None, {}, "closed"),
    ],
)
def test_what_the_end_of_a_trial_tells_of_a_server(class_: FailureClass | None, more: Any, state: str) -> None:
    circuit = CircuitBreaker(Breaker(), lambda: 0.5)
    circuit.trip(0.0)
    circuit.trial("a")
    circuit.gone("a")
    circuit.ended(class_, 100.0, **more)
    assert circuit.state(100.0) == state


def test_service_times_know_swaps_and_forget() -> None:
    times = ExpectedTimes()
    assert times.predict_s("a", None) == 0.0
    times.learn("a", None, 20.0)
    assert times.predict_s("a", "a") == times.predict_s("b", "a") == 20.0
    times.learn("a", "a", 8.0)
    assert times.predict_s("a", "a") == 8.0 and times.predict_s("a", "b") == 20.0 and times.swap_s("a") == 12.0
    for _ in range(100):
        times.learn("a", "a", 4.0)
    before = times.predict_s("a", "a")
    for _ in range(20):
        times.learn("a", "a", 2.0)
    assert times.predict_s("a", "a") == pytest.approx((before + 2.0) / 2, rel=0.05)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert classify_refusal(503, b"", headers).retry_after_s == seconds


def test_admission_says_what_it_limits() -> None:
    assert Admission().depth is None and Admission(depth=0).depth == 0
