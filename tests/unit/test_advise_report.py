"""What people read of advice, and what other tools are given: nothing cut, and what cannot be said is said."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from comfyload.advise.choose_policy import synthesise
from comfyload.advise.forecast import forecasts, size, validate
from comfyload.advise.service_times import Workload, pools_of
from comfyload.app.advice import Basis, ahead
from comfyload.report.advice import forecast_table, render_policy, sizing_words, validation_table
from comfyload.report.console import draw
from comfyload.report.retry_export import formats, retry_export
from comfyload.retry.policy import Admission, Backoff, Policy, Score, default
from tests.unit.advise_pools import pools_of_one, ran, unimodal

ONE = Workload(shares=[1.0])


def _rng() -> np.random.Generator:
    return np.random.default_rng(1)


def _console() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=100), file


def test_a_policy_is_shown_with_its_reasons_and_scores() -> None:
    console, file = _console()
    policy = synthesise(
        pools_of_one(unimodal(60, _rng())), ONE, deadline_s=90, rate_per_s=0.06, rng=_rng(), replications=2
    )
    render_policy(policy, console)
    text = file.getvalue()
    assert "admission.depth" in text and "twice what they can do" in text and "this policy" in text
    assert "never" in text and ("Others did better in" in text or "No other policy" in text)
    assert max(len(line) for line in text.splitlines()) <= 100


def test_what_cannot_be_had_comes_first() -> None:
    console, file = _console()
    render_policy(Policy(explanations={"infeasible.deadline": "8 s is too short", "deadline_s": "as asked"}), console)
    assert file.getvalue().startswith("Not possible: 8 s is too short.")


def test_where_others_did_better_is_said() -> None:
    console, file = _console()
    rows = [
        Score(scenario="sick", policy="this policy", success=0.67, success_half_width=0.01, recovery_s=0.0),
        Score(scenario="sick", policy="3 retries at once", success=0.77),
    ]
    render_policy(Policy(scores=rows), console)
    text = file.getvalue()
    assert "Others did better in: 60 % of executions fail: 3 retries at once 77.0 %, this 67.0 %." in text
    assert "at once" in text and "never" in text


def test_an_unstable_load_has_no_number() -> None:
    console, file = _console()
    rows = forecasts(pools_of_one([10.0] * 40), ONE, rates_per_s=[0.05, 0.12], deadline_s=60, rng=_rng())
    draw(forecast_table(rows, 60), console)
    _, stable, unstable = file.getvalue().splitlines()
    assert "50 %" in stable and "(" in stable
    assert "unstable" in unstable and "∞" in unstable and "100 %" in unstable and " s (" not in unstable


def test_how_many_servers_is_a_sentence() -> None:
    pools = pools_of_one([10.0] * 40)
    one = size(pools, ONE, rate_per_s=0.03, limit_s=40, rng=_rng())
    assert sizing_words(one) == (
        "1 server keeps the p95 within 40 s; to carry the load when one is lost, 2 are needed."
    )
    assert sizing_words(size(pools, ONE, rate_per_s=0.03, limit_s=9, rng=_rng())).startswith("No number of servers")


def test_how_wide_a_forecast_is_is_said_with_the_jobs_that_would_halve_it() -> None:
    few, many = (
        Basis(pools=pools_of_one(unimodal(n, _rng(), cv)), workload=ONE, transient=(0, n), doubts=["a doubt"])
        for n, cv in ((30, 0.5), (400, 0.05))
    )
    first, said = ahead(few, rate_per_s=0.07, limit_s=45, servers=1).doubts
    assert first == "a doubt" and said.startswith("At 4.2 a minute the p95 may be") and "as it rests on 30 jobs" in said
    assert said.endswith("with four times as many: 120.")
    assert ahead(many, rate_per_s=0.05, limit_s=45, servers=1).doubts == ["a doubt"]


def test_checks_of_the_model_are_a_table() -> None:
    console, file = _console()
    pools = pools_of([ran(np.arange(60) * 100.0, unimodal(60, _rng()))])
    draw(validation_table(validate(ran(np.arange(40) * 12.0, unimodal(40, _rng())), pools, rng=_rng())), console)
    assert "structural, mean" in file.getvalue() and "replay, p95" in file.getvalue()


@pytest.mark.parametrize("to", formats())
@pytest.mark.parametrize("policy", [default(), Policy(deadline_s=90, attempts=4, admission=Admission(depth=6))])
def test_every_export_says_what_it_cannot_express(to: str, policy: Policy) -> None:
    text = retry_export(policy, to)  # type: ignore[arg-type]
    assert "Cannot be said here" in text and text.endswith("\n") and "None" not in text.replace("timeout=None", "")


def test_python_exports_are_python() -> None:
    policy = Policy(deadline_s=90, attempts=4, backoff=Backoff(base_s=1, cap_s=15))
    tenacity, stamina = retry_export(policy, "tenacity"), retry_export(policy, "stamina")
    compile(tenacity, "tenacity", "exec")
    compile(stamina, "stamina", "exec")
    assert "stop_after_delay(90) | stop_after_attempt(4)" in tenacity
    assert "wait_random_exponential(multiplier=1, max=15)" in tenacity
    assert "attempts=4" in stamina and "timeout=90" in stamina


def test_variables_hold_the_numbers() -> None:
    lines = retry_export(Policy(deadline_s=90, attempts=4, admission=Admission(depth=6)), "env").splitlines()
    for line in (
        "COMFY_DEADLINE_SEC=90",
        "COMFY_MAX_RETRIES=3",
        "COMFY_RETRY_BACKOFF_SEC=1",
        "COMFY_MAX_QUEUE_DEPTH=6",
    ):
        assert line in lines
    assert "# COMFY_DEADLINE_SEC=  (no limit)" in retry_export(default(), "env")


def test_proxies_never_send_a_prompt_again_that_may_have_been_taken() -> None:
    """And keep a client on one server: its socket, its files and its prompts are there."""
    policy = Policy(deadline_s=90, backoff=Backoff(base_s=1, cap_s=15))
    envoy, nginx = retry_export(policy, "envoy"), retry_export(policy, "nginx")
    lines = [line.strip() for line in envoy.splitlines() if not line.startswith("#")]
    assert [line for line in lines if line.startswith("retry_on:")] == ["retry_on: connect-failure"]
    assert lines.count("hash_policy: [{ connection_properties: { source_ip: true } }]") == 2 and "websocket" in envoy
    directives = [line.strip() for line in nginx.splitlines() if not line.startswith("#")]
    assert "proxy_next_upstream error timeout;" in directives and not any("non_idempotent" in d for d in directives)
    assert any(d.startswith("ip_hash;") for d in directives) and "location /ws {" in directives
