"""A comparison says faster or slower only where runs prove it, and says what it cannot know."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from rich.console import Console

from comfyload.errors import UsageError
from comfyload.judge.comparison.compare import Comparison, Ratio, compare
from comfyload.judge.comparison.effects import (
    Effect,
    combined,
    from_intervals,
    from_pairs,
    from_runs,
    hodges_lehmann,
    runs_needed,
    verdict,
)
from comfyload.judge.statistics.significance import holm
from comfyload.judge.summary import Measured, measure
from comfyload.record.model import Record, ServerTimes, WorkflowFacts
from comfyload.record.plan import Closed, Plan
from comfyload.report.comparison import comparison_json, comparison_page
from comfyload.report.render.markdown import as_markdown
from comfyload.report.render.terminal import render
from tests.support.rig import play, sleeper
from tests.unit.judge_runs import FACTS, censored, failed, job, manifest, one_by_one


def _run(records: list[Record], name: str = "r", **changes: Any) -> Measured:
    return measure(name, manifest(len(records), run_id=name, **changes), records)


def _noisy(level: float, n: int = 12, seed: int = 0, **changes: Any) -> Measured:
    rng = np.random.default_rng(seed)
    return _run(one_by_one([float(x) for x in level * rng.lognormal(0, 0.05, n)]), f"r{seed}", **changes)


def _row(comparison: Comparison, name: str, **fields: Any) -> Ratio:
    (row,) = (
        row for row in comparison.rows if row.name == name and all(getattr(row, k) == v for k, v in fields.items())
    )
    return row


def _draw(comparison: Comparison, width: int = 80, encoding: str = "utf-8", all_: bool = False) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n", write_through=True)
    render(comparison_page(comparison), Console(file=file, width=width, color_system=None), all=all_)
    return raw.getvalue().decode(encoding)


def _effect(ratio: float, low: float, high: float) -> Effect:
    return Effect(log=math.log(ratio), low=math.log(low), high=math.log(high), p=0.01, spread=0.05, method="made up")


# --- the arithmetic


@pytest.mark.parametrize(
    ("ratio", "low", "high", "said"),
    [
        (1.10, 1.02, 1.18, "slower"),
        (1.04, 1.01, 1.08, "inconclusive"),  # proven, and not worth it
        (1.10, 0.99, 1.22, "inconclusive"),
        (0.90, 0.84, 0.97, "faster"),
        (1.01, 0.97, 1.04, "no practical difference"),
        (1.03, 1.02, 1.04, "no practical difference"),  # proven, and trivial
    ],
)
def test_a_verdict_needs_proof_and_size(ratio: float, low: float, high: float, said: str) -> None:
    assert verdict(_effect(ratio, low, high), 0.05) == said


def test_more_of_a_rate_is_faster() -> None:
    assert verdict(_effect(1.2, 1.1, 1.3), 0.05, higher_is_faster=True) == "faster"
    assert verdict(_effect(0.8, 0.7, 0.9), 0.05, higher_is_faster=True) == "slower"


def test_a_verdict_does_not_outlive_the_correction_for_many_rows() -> None:
    assert verdict(_effect(1.10, 1.02, 1.18), 0.05, p=0.06) == "inconclusive"


def test_holm_of_a_known_example() -> None:
    # Holm 1979 by hand: 4 x .005, 3 x .01, 2 x .03, and .04 not below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_pairs_are_students_t_of_the_log_ratios() -> None:
    effect = from_pairs(np.array([0.05, 0.10, 0.15]))  # sd .05, t(.975, 2) = 4.3027
    half = 4.302653 * 0.05 / math.sqrt(3)
    assert (effect.low, effect.high) == pytest.approx((0.1 - half, 0.1 + half))
    assert effect.p == pytest.approx(0.0741799, abs=1e-6)


def test_one_run_against_several_takes_their_deviation() -> None:
    several = np.array([0.0, 0.02, 0.04])
    effect = from_runs(np.array([0.12]), several)
    assert effect.log == pytest.approx(-0.10)
    assert effect.high - effect.log == pytest.approx(4.302653 * 0.02 * math.sqrt(4 / 3))


def test_the_hodges_lehmann_shift_of_a_textbook_example() -> None:
    # Hollander & Wolfe, permeability of membranes: shift 0.305, exact 95 % interval -0.15 .. 0.76.
    term = np.array([0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46])
    weeks = np.array([1.15, 0.88, 0.90, 0.74, 1.21])
    middle, low, high = hodges_lehmann(weeks, term)
    assert middle == pytest.approx(0.305)
    assert (low, high) == pytest.approx((-0.15, 0.76))


def test_three_jobs_a_side_bound_nothing() -> None:
    middle, low, high = hodges_lehmann(np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0]))
    assert (middle, low, high) == (1.0, -math.inf, math.inf)


def test_a_long_sample_is_thinned_without_being_changed() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 2500), rng.normal(0.1, 1, 2500)
    middle, low, high = hodges_lehmann(a, b)
    shifts = np.sort(np.subtract.outer(b, a), axis=None)
    assert middle == pytest.approx(float(np.median(shifts)), abs=1e-3)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(math.pi / 3) * math.sqrt(2 / 2500), rel=0.05)


def test_two_intervals_make_one_of_the_difference() -> None:
    effect = from_intervals((0.0, -0.3, 0.3), (1.0, 0.6, 1.4), 0.0)
    assert (effect.low, effect.high) == pytest.approx((0.5, 1.5))


def test_what_is_assumed_of_single_runs_does_not_average_out() -> None:
    one = from_intervals((0.0, 0.0, 0.0), (0.1, 0.1, 0.1), 0.04)
    assert combined([one] * 9).high == pytest.approx(one.high)
    alone = _effect(1.1, 1.0, 1.21)
    assert combined([alone] * 4).high == pytest.approx(math.log(1.1) + math.log(1.1) / 2)


def test_runs_needed_by_the_formula_of_the_half_width() -> None:
    # t(.975, k-1) * .05 / sqrt(k) below .1: 3.182 * .025 = .0796 at k = 4, 4.303 * .0289 = .124 at k = 3.
    seen = Effect(log=0.1, low=-0.1, high=0.3, p=0.2, spread=0.05, paired=True, method="")
    assert runs_needed(seen, 0.05) == 4
    assert runs_needed(structs.replace(seen, spread=2.0), 0.05) is None


# --- designs


def test_pairs_cancel_what_they_share() -> None:
    levels = [10.0, 14.0, 9.0, 12.0, 11.0]
    a = [_noisy(level, seed=i) for i, level in enumerate(levels)]
    b = [_noisy(1.2 * level, seed=10 + i) for i, level in enumerate(levels)]
    row = _row(compare(a, b, paired=True), "p50_execution_s")
    assert row.verdict == "slower" and row.low is not None and row.low > 1.1
    assert _row(compare(a, b), "p50_execution_s").verdict == "inconclusive"


def test_single_runs_say_what_they_do_not_know_and_are_widened_for_it() -> None:
    a, b = _noisy(10.0, 60, 1), _noisy(10.8, 60, 2)
    found = compare([a], [b])
    assert found.design == "single"
    assert any("between-run noise unknown" in caveat for caveat in found.caveats)
    row = _row(found, "p50_execution_s")
    assert row.verdict == "inconclusive" and row.runs_needed is not None and row.runs_needed > 2
    assert _row(compare([a], [b], repeatability=0.0), "p50_execution_s").verdict == "slower"


def test_measured_repeatability_raises_the_margin() -> None:
    a, b = [_noisy(10.0, seed=i) for i in range(5)], [_noisy(10.9, seed=20 + i) for i in range(5)]
    assert _row(compare(a, b), "p50_execution_s").verdict == "slower"
    row = _row(compare(a, b, repeatability=0.06), "p50_execution_s")
    assert row.margin == pytest.approx(0.12) and row.verdict != "slower"


def test_a_rate_that_rises_is_faster() -> None:
    found = compare([_noisy(10.0, seed=i) for i in range(5)], [_noisy(7.0, seed=20 + i) for i in range(5)])
    rate, latency = _row(found, "images_per_minute"), _row(found, "p50_latency_s")
    assert rate.verdict == latency.verdict == "faster"
    assert rate.ratio is not None and rate.ratio > 1.2 and latency.ratio is not None and latency.ratio < 0.8


def test_a_tail_of_few_jobs_is_withheld_with_the_reason() -> None:
    row = _row(compare([_noisy(10.0, 60, 1)], [_noisy(10.0, 60, 2)]), "p95_latency_s")
    assert (row.ratio, row.verdict) == (None, "inconclusive") and "200 jobs" in row.note
    known = _row(compare([_noisy(10.0, 200, 1)], [_noisy(20.0, 200, 2)]), "p95_latency_s")
    assert known.verdict == "slower"


def test_a_zero_has_no_ratio() -> None:
    still = [job(i, 10.0 * i, 9.0, outputs=[]) for i in range(12)]
    row = _row(compare([_run(still)], [_noisy(10.0)], accept=["valid"]), "images_per_minute")
    assert row.ratio is None and row.note


def test_a_median_of_a_few_server_milliseconds_has_no_verdict() -> None:
    def run(ms: int) -> Measured:
        def times(i: int) -> ServerTimes:
            start = 1_700_000_000_005 + 10_000 * i
            return ServerTimes(create_ms=start - 5, start_ms=start, end_ms=start + ms)

        return _run([job(i, 10.0 * i, 0.1 * ms + 0.001 * i, server=times(i)) for i in range(60)])

    found = compare([run(10)], [run(20)])
    row = _row(found, "p50_execution_s")
    assert row.verdict == "inconclusive" and "whole milliseconds" in row.note and row.ratio is not None
    assert _row(found, "p50_latency_s").verdict == "slower"


def test_failures_are_compared_exactly_and_are_not_dropped_silently() -> None:
    bad = [failed(i, 10.0 * i, 9.0) if i < 12 else job(i, 10.0 * i, 9.0) for i in range(60)]
    good = [job(i, 10.0 * i, 9.0) for i in range(60)]
    found = compare([_run(good)], [_run(bad)])
    row = _row(found, "failures")
    assert (row.verdict, row.a, row.b) == ("more failures", 0.0, 0.2)
    assert row.p == pytest.approx(2 * math.comb(60, 12) / math.comb(120, 12))
    assert any("12 of B did not complete" in caveat for caveat in found.caveats)
    assert _row(compare([_run(bad)], [_run(good)]), "failures").verdict == "fewer failures"
    assert "none failed; up to 5.96 %" in _row(compare([_run(good)], [_run(good)]), "failures").note


def test_cut_off_jobs_are_not_taken_for_short_ones() -> None:
    cut = [*one_by_one([10.0] * 20), censored(job(20, 200.0, 3.0))]
    row = _row(compare([_run(cut)], [_noisy(10.0, 20, 1)]), "p50_latency_s")
    assert "from their intervals" in row.method


# --- the median and the mean


def _bimodal(slow: float, seed: int, n: int = 40, share: int = 8) -> Measured:
    """Every so-many-th job takes so much longer."""
    rng = np.random.default_rng(seed)
    seconds = 10 * rng.lognormal(0, 0.02, n) * np.where(np.arange(n) % share == share - 1, slow, 1.0)
    return _run(one_by_one([float(x) for x in seconds]), f"r{seed}")


def _pairs(a: float, b: float, **changes: Any) -> Comparison:
    sides = [[_bimodal(slow, seed + i, **changes) for i in range(5)] for slow, seed in ((a, 0), (b, 20))]
    return compare(sides[0], sides[1], paired=True)


def test_longer_slow_jobs_are_slower_by_the_mean_though_the_median_is_the_same() -> None:
    found = _pairs(2.5, 4.0)
    assert found.overall is not None and found.overall.verdict == "slower"
    assert found.overall.ratio == pytest.approx((35 + 20) / (35 + 12.5), rel=0.02)
    assert found.why == "By the mean: more, or longer, slow jobs; the median is the same within 5 %."
    assert _row(found, "p50_execution_s").verdict == "no practical difference"
    assert "SLOWER. mean execution +15" in _draw(found) and "By the mean" in as_markdown(comparison_page(found))
    assert _pairs(4.0, 2.5).why.startswith("By the mean: fewer, or shorter, slow jobs")


def test_the_same_median_and_mean_are_no_practical_difference_but_for_what_is_rare() -> None:
    found = _pairs(2.5, 2.5)
    assert found.overall is not None and found.overall.verdict == "no practical difference"
    assert found.why == "Slow jobs that are rarer than 1.5 % may not be among the 200 of a side."
    few = _pairs(2.5, 2.5, n=16)
    assert few.why.endswith("80 of a side. The tail is not compared.")


def test_medians_that_are_the_same_do_not_speak_for_means() -> None:
    runs = [[_bimodal(2.5, seed + i, share=[5, 8, 10, 20, 40][i]) for i in range(5)] for seed in (0, 20)]
    found = compare(runs[0], runs[1][::-1], paired=True)
    assert found.overall is not None and found.overall.verdict == "inconclusive"
    assert found.why == "Medians are the same; of the means that is not shown."
    assert found.overall.runs_needed is not None and found.overall.runs_needed > 5


def test_means_of_few_jobs_are_not_shown_to_be_the_same() -> None:
    sides = [[_noisy(10.0, 8, seed=seed + i) for i in range(5)] for seed in (0, 20)]
    exact = [[_run(one_by_one([10.0] * 8), f"e{i}") for i in range(5)] for _ in sides]
    found = compare(exact[0], exact[1], paired=True)
    row = _row(found, "avg_execution_s")
    assert (row.verdict, row.runs_needed) == ("inconclusive", 8) and "from 59 jobs a side" in row.note
    assert found.overall is not None and (found.overall.verdict, found.overall.runs_needed) == ("inconclusive", 8)


def test_a_median_and_a_mean_that_go_apart_are_inconclusive() -> None:
    a = [_bimodal(3.0, i) for i in range(5)]
    c = [_run(one_by_one([11.5 + 0.1 * ((i + j) % 3) for j in range(40)]), f"c{i}") for i in range(5)]
    apart = compare(a, c, paired=True)
    assert apart.overall is not None and apart.overall.verdict == "inconclusive"
    assert apart.why == "The median is slower and the mean is faster."


def test_what_failed_more_is_not_called_the_same() -> None:
    good = [one_by_one([10.0 + 0.01 * (j % 5) for j in range(40)]) for _ in range(5)]
    bad = [[failed(j, 10.0 * j, 9.0) if j < 6 else job for j, job in enumerate(run)] for run in good]
    found = compare([_run(run) for run in good], [_run(run) for run in bad], paired=True, accept=["valid"])
    assert found.overall is not None and found.overall.verdict == "inconclusive"
    assert (
        found.why
        == "Median and mean are the same, but not images per minute (slower), jobs per minute (slower), failures."
    )


def test_the_tail_of_several_runs_is_that_of_all_their_jobs() -> None:
    found = _pairs(2.5, 4.0)
    row = _row(found, "p95_latency_s")
    assert row.verdict == "slower" and row.ratio == pytest.approx(1.6, rel=0.03)
    assert "of all jobs of a side together" in row.note and "widened by 5 pairs" in row.method
    withheld = _row(_pairs(2.5, 4.0, n=12), "p95_latency_s")
    assert withheld.ratio is None
    assert withheld.note == "a p95 is compared from 200 jobs a side, which 17 pairs like these would make"


def test_a_tail_with_jobs_cut_off_is_withheld() -> None:
    runs = [[*one_by_one([10.0 + j % 3 for j in range(60)]), censored(job(60, 700.0, 3.0))] for _ in range(8)]
    row = _row(compare([_run(run) for run in runs[:4]], [_run(run) for run in runs[4:]]), "p95_latency_s")
    assert row.ratio is None and "cut off" in row.note


# --- loads and workflows


def _at(concurrency: int, level: float, seed: int) -> Measured:
    return _noisy(level, 12, seed, plan=Plan(load=Closed(concurrency=concurrency), jobs=12, warmup=1))


def test_runs_are_compared_load_by_load() -> None:
    a = [_at(c, 10.0 * c, seed=10 * c + i) for c in (1, 2) for i in range(4)]
    b = [_at(c, 15.0 * c, seed=50 + 10 * c + i) for c in (2, 1) for i in range(4)]
    found = compare(a, [*b, _at(4, 40.0, 7)])
    assert list(dict.fromkeys(row.load for row in found.rows)) == ["book, 1 in flight", "book, 2 in flight"]
    assert {_row(found, "p50_latency_s", load=f"book, {c} in flight").verdict for c in (1, 2)} == {"slower"}
    assert any("only in B: book, 4 in flight" in caveat for caveat in found.caveats)
    assert found.overall is not None and found.overall.verdict == "slower"
    assert found.overall.ratio == pytest.approx(1.5, rel=0.03)


def test_sides_without_a_load_in_common_are_refused_naming_both() -> None:
    with pytest.raises(UsageError, match=r"only in A: .*1 in flight; .*2 in flight, only in B: .*3 in flight"):
        compare([_at(1, 10.0, 1), _at(2, 10.0, 2)], [_at(3, 10.0, 3), _at(4, 10.0, 4)])


def test_runs_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(UsageError, match="2 runs do not pair up with 1"):
        compare([_at(1, 10.0, 1), _at(1, 10.0, 2)], [_at(1, 10.0, 3)], paired=True)
    with pytest.raises(UsageError, match="one side has no run"):
        compare([], [_at(1, 10.0, 1)])


def _mixed(cover: float, seed: int) -> Measured:
    both = [FACTS, structs.replace(FACTS, name="cover", sha256="1" * 64)]
    rng, due, records = np.random.default_rng(seed), 0.0, []
    for i in range(24):
        seconds = float((cover if i % 2 else 10.0) * rng.lognormal(0, 0.03))
        records.append(structs.replace(job(i, due, seconds), workflow="cover" if i % 2 else "book"))
        due += seconds
    return _run(records, f"r{seed}", workflows=both)


def test_each_workflow_of_a_mix_is_compared_and_the_overall_is_made_of_these() -> None:
    found = compare([_mixed(20.0, i) for i in range(5)], [_mixed(30.0, 10 + i) for i in range(5)], paired=True)
    assert _row(found, "p50_execution_s", workflow="book").verdict == "no practical difference"
    assert _row(found, "p50_execution_s", workflow="cover").verdict == "slower"
    assert found.overall is not None and found.overall.ratio == pytest.approx(math.sqrt(1.5), rel=0.03)


def test_nodes_are_compared_by_workflow_and_node_and_what_ran_once_is_said() -> None:
    slow = [job(i, 20.0 * i, 20.0, nodes=job(i, 20.0 * i, 20.0).execution.nodes[:1]) for i in range(60)]
    found = compare([_noisy(10.0, 60, 1)], [_run(slow)])
    assert _row(found, "3 KSampler").verdict == "slower"
    assert any("Nodes that ran only in A: 9 SaveImage" in caveat for caveat in found.caveats)


def test_the_headline_is_corrected_only_over_loads_and_workflows() -> None:
    a, b = [_noisy(10.0, seed=i) for i in range(5)], [_noisy(11.0, seed=20 + i) for i in range(5)]
    found = compare(a, b, paired=True)
    headline, mean, other = (_row(found, name) for name in ("p50_execution_s", "avg_execution_s", "p50_latency_s"))
    assert headline.headline and mean.headline and not other.headline
    assert headline.p is not None and mean.p is not None
    assert [headline.p_holm, mean.p_holm] == holm([headline.p, mean.p])
    assert other.p is not None and other.p_holm is not None and other.p_holm > other.p
    assert found.overall is not None and found.overall.ratio == headline.ratio


# --- what people read


def _simulated(seconds: float, name: str, title: str = "g") -> Measured:
    played, _ = play(jobs=30, graph=sleeper(seconds), run_id=name, server={"seed": len(name)})
    assert played.variation is not None and played.facts is not None
    facts: WorkflowFacts = structs.replace(played.variation.facts({}, keep_graph=False), sha256="0" * 64, name=title)
    records = [structs.replace(record, workflow=title) for record in played.records]
    return measure(name, manifest(30, workflows=[facts], server=played.facts, run_id=name), records)


def test_two_speeds_of_a_simulated_server_read_as_slower_first_and_within_80_columns() -> None:
    found = compare([_simulated(0.5, "first")], [_simulated(0.8, "second")])
    text = _draw(found)
    assert text.index("SLOWER. p50 execution +60.0 %") < text.index("▇  slower") < text.index("more metrics: 1 slower")
    assert "p50 latency" not in text, "what says the same is counted"
    text = _draw(found, all_=True)
    assert text.index("more metrics") < text.index("p50 latency") < text.index("node 2 SimSleep")
    assert max(map(len, text.splitlines())) <= 80
    assert "between-run noise unknown" in text
    assert _draw(found, encoding="ascii").isascii()
    assert comparison_json(found)["overall"]["verdict"] == "slower"


def test_nothing_is_cut_where_the_words_are_long() -> None:
    a = [_at(c, 12345.0, seed=10 * c + i) for c in (1, 2) for i in range(4)]
    text = _draw(compare(a, a[:3] + a[4:]))
    assert "…" not in text and max(map(len, text.splitlines())) <= 80


def test_markup_in_names_stays_text() -> None:
    hostile = "<script>alert(1)</script>|[x](y)\x1b[31m"
    found = compare([_simulated(0.5, "first", hostile)], [_simulated(0.5, "second", hostile)])
    row = structs.replace(_row(found, "p50_latency_s"), load=hostile, note=hostile, name="overall")
    shown = structs.replace(found, rows=[row], caveats=[hostile])
    text, page = _draw(shown), as_markdown(comparison_page(shown))
    assert "\x1b[31m" not in text
    assert "<script>" not in page and "\\|\\[x\\]" in page


def test_accepted_workflows_of_different_names_are_compared_as_a_whole() -> None:
    other = structs.replace(FACTS, name="cover", sha256="1" * 64)
    slow = [
        structs.replace(record, workflow="cover") for record in one_by_one([20.0 + 0.1 * (i % 5) for i in range(12)])
    ]
    found = compare([_noisy(10.0)], [_run(slow, workflows=[other])], accept=["workflow", "seeds"])
    assert found.overall is not None and found.overall.verdict == "slower"


def test_the_sentence_and_the_table_write_the_same_value_to_its_last_digit() -> None:
    """A median that ends in a five is rounded down or up by what a logarithm and back leaves of it."""
    for base in range(2175, 2475, 10):
        level = base / 1e4
        runs = []
        for name, seconds in (("a", level), ("b", 1.4 * level)):
            records = [
                structs.replace(r, execution=structs.replace(r.execution, server=ServerTimes()))
                for r in one_by_one([seconds] * 12)
            ]
            runs.append(_run(records, name))
        found = compare([runs[0]], [runs[1]])
        row, overall = _row(found, "p50_latency_s"), found.overall
        assert overall is not None and (overall.a, overall.b) == (row.a, row.b)
        assert row.a == runs[0].summary.summary["p50_latency_s"]


def test_previews_and_saved_images_have_no_ratio() -> None:
    a, b = _noisy(10.0), _noisy(10.0, seed=1)
    statistics = {**b.summary.statistics}
    statistics["images_per_minute"] = structs.replace(statistics["images_per_minute"], unit="previews/min")
    b = structs.replace(b, summary=structs.replace(b.summary, statistics=statistics))
    row = _row(compare([a], [b]), "images_per_minute")
    assert row.ratio is None and row.note == "not the same is counted: images/min and previews/min"
