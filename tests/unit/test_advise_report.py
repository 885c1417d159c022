"""What people read of advice, and what other tools are given: nothing cut, and what cannot be said is said."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from comfyload.advise.choose_policy import synthesise
from comfyload.advise.forecast import forecasts, size
from comfyload.advise.service_times import Workload, pools_of
from comfyload.advise.validation import validate
from comfyload.app.advice import Basis, ahead
from comfyload.record.policy import Admission, Backoff, Policy, Score
from comfyload.report.advice import capacity_page, forecast_table, policy_page, sizing_words
from comfyload.report.page import Page
from comfyload.report.render.terminal import render
from comfyload.report.retry_export import FORMATS, retry_export
from comfyload.report.saturation import validation_table
from comfyload.retry.policy import default
from tests.unit.advise_pools import pools_of_one, ran, unimodal

ONE = Workload(shares=[1.0])


def _rng() -> np.random.Generator:
    return np.random.default_rng(1)


def _console() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=100), file


def _policy_text(policy: Policy, width: int = 80, *, all_: bool = False, file: str = "retry.json") -> str:
    out = io.StringIO()
    render(policy_page(policy, file, [], ["comfyload faults"]), Console(file=out, width=width), all=all_)
    return out.getvalue()


def test_a_policy_is_a_sentence_and_a_line_for_each_trouble_and_all_else_is_detail() -> None:
    policy = synthesise(
        pools_of_one(unimodal(60, _rng())), ONE, deadline_s=90, rate_per_s=0.06, rng=_rng(), replications=2
    )
    short, whole = _policy_text(policy), _policy_text(policy, all_=True)
    assert short.startswith("Wrote retry.json: 90 s in all, at most ") and "hung after 60 s." in short.replace(
        "\n", " "
    )
    lines = short.splitlines()
    (head,) = (at for at, line in enumerate(lines) if line.startswith("done in 90 s"))
    troubles = lines[head + 1 : head + 8]
    assert [line[:13] for line in troubles[:2]] == ["no trouble   ", "twice the cap"]
    assert all("%" in line and line.rstrip()[-1:] and any(sign in line for sign in "✓=✗") for line in troubles)
    assert lines[-1] == "Next  comfyload faults" and "admission.depth" not in short
    assert "admission.depth" in whole and "this policy" in whole and "never" in whole
    assert max(map(len, (short + whole).splitlines())) <= 80
    assert not any(line.strip() == "each" for line in whole.splitlines())


def test_what_cannot_be_had_is_said_before_the_numbers() -> None:
    policy = Policy(explanations={"infeasible.deadline": "8 s is too short", "deadline_s": "as given"})
    assert _policy_text(policy, file="").startswith(
        "Not written: no deadline, any number of prompts ahead, 3 attempts."
    )
    assert "NOT POSSIBLE. 8 s is too short." in _policy_text(policy)


def test_a_trouble_in_which_another_policy_does_better_is_crossed_and_names_it() -> None:
    rows = [
        Score(scenario="sick", policy="this policy", success=0.67, success_half_width=0.01, recovery_s=0.0),
        Score(scenario="sick", policy="3 retries at once", success=0.77),
        Score(scenario="burst", policy="this policy", success=0.9),
        Score(scenario="burst", policy="no retry", success=0.5),
        Score(scenario="steady", policy="this policy", success=0.997),
        Score(scenario="steady", policy="no retry", success=1.0),
    ]
    lines = {line[:18]: line.split() for line in _policy_text(Policy(scores=rows)).splitlines()}
    assert " ".join(lines["60 % of executions"]).endswith("67.0 % ±1.0 – 77.0 % ✗ 3 retries at once")
    assert " ".join(lines["twice the capacity"]).endswith("90.0 % 50.0 % 50.0 % ✓")
    assert " ".join(lines["no trouble        "]).endswith("99.7 % 100 % 100 % =")


def test_an_unstable_load_has_no_number() -> None:
    console, file = _console()
    rows = forecasts(pools_of_one([10.0] * 40), ONE, rates_per_s=[0.05, 0.12], deadline_s=60, rng=_rng())
    render(Page(title="", tables=[forecast_table(rows, 60)]), console, all=True)
    _, stable, interval, unstable, _ = file.getvalue().splitlines()
    assert "50 %" in stable and "–" in interval
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
    assert (
        first == "a doubt"
        and said.startswith("At 4.2 a minute the p95 may be")
        and "because it rests on 30 jobs" in said
    )
    assert said.endswith("Four times as many, 120, halve that interval.")
    assert ahead(many, rate_per_s=0.05, limit_s=45, servers=1).doubts == ["a doubt"]


def test_the_answer_of_capacity_is_a_sentence_of_its_own_and_dispatch_names_its_rate() -> None:
    out, pools = io.StringIO(), pools_of_one([10.0] * 40)
    found = ahead(
        Basis(pools=pools, workload=ONE, transient=(0, 40), doubts=[]), rate_per_s=0.15, limit_s=45, servers=None
    )
    render(capacity_page(found, ["w"], []), Console(file=out, width=80))
    assert out.getvalue().startswith("2 servers keep the p95 within 45 s; to carry the load when one is lost, 3 are")
    assert "needed. From 40 jobs of w: " in " ".join(out.getvalue().split())
    assert "3 servers at 9.00 a minute" in out.getvalue()


def test_checks_of_the_model_are_a_table() -> None:
    console, file = _console()
    pools = pools_of([ran(np.arange(60) * 100.0, unimodal(60, _rng()))])
    found = validate(ran(np.arange(40) * 12.0, unimodal(40, _rng())), pools, rng=_rng())
    render(Page(title="", tables=[validation_table("checks", "A run", found)]), console, all=True)
    assert "mean, from its own times" in file.getvalue() and "p95, with its own arrivals" in file.getvalue()
    (own,) = (line for line in file.getvalue().splitlines() if line.startswith("mean, from its own times"))
    assert "±" in own and "+" not in own  # the mean of absolute errors has no sign


def test_short_latencies_are_milliseconds_and_an_interval_that_rounds_to_its_number_is_left_out() -> None:
    console, file = _console()
    rows = forecasts(pools_of_one([0.0602] * 40), ONE, rates_per_s=[5.0], deadline_s=60, rng=_rng())
    render(Page(title="", tables=[forecast_table(rows, 60)]), console, all=True)
    text = file.getvalue()
    assert "p50, ms" in text and "60.2" in text and "0.06" not in text and "60.2–60.2" not in text


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("policy", [default(), Policy(deadline_s=90, attempts=4, admission=Admission(depth=6))])
def test_every_export_says_what_it_cannot_express(to: str, policy: Policy) -> None:
    text = retry_export(policy, to)
    assert "Not expressible here" in text and text.endswith("\n") and "None" not in text.replace("timeout=None", "")


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
