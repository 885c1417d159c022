"""What GPU readings come to: against known truth, withheld where they cannot tell, and each flag on its own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from comfyload.judge.columns.fold import Fold
from comfyload.judge.columns.gpu import GpuReadings, GpuRow, gpu_rows
from comfyload.judge.columns.jobs import Jobs
from comfyload.judge.saturation import saturation
from comfyload.record.model import Record, Sample
from tests.unit.judge_runs import FACTS, job, one_by_one

PAUSE = 0.5


def _jobs(records: list[Record]) -> Jobs:
    fold = Fold([FACTS])
    fold.add(records)
    return fold.finish()


def _busy(t: float, records: list[Record]) -> bool:
    """Whether at this instant some job's kernels run: in the first three quarters of each."""
    return any(r.due + 0.001 <= t <= r.due + 0.75 * ((r.execution.done or 0) - r.due) for r in records)


def _samples(
    records: list[Record], until: float, *, source: str = "nvml", silent: tuple[float, float] | None = None
) -> Iterator[Sample]:
    for at in np.arange(0.0, until, PAUSE).tolist():
        share = float(np.mean([_busy(t, records) for t in np.linspace(at - PAUSE, at, 20).tolist()]))
        known = silent is None or not silent[0] <= at <= silent[1]
        values = {
            "gpu.0.utilisation_percent": 100.0 * share,
            "gpu.0.vram_used_bytes": 4e9 if share == 0 else 9e9,
            "gpu.0.power_w": 300.0 if share > 0.5 else 20.0,
        }
        for name, value in values.items():
            yield Sample(t=at, source=source, name=name, value=value if known else None)


def _row(records: list[Record], samples: list[Sample]) -> GpuRow:
    readings = GpuReadings()
    for sample in samples:
        readings.add(sample)
    return gpu_rows(readings, _jobs(records), (0.0, None), servers={"": False})["0"]


def test_the_ceiling_is_what_jobs_make_of_the_gpu_and_idling_is_not_in_it() -> None:
    packed = one_by_one([10.0] * 12)
    row = _row(packed, list(_samples(packed, 120.0)))
    assert row.utilisation_percent == pytest.approx(75, abs=1)
    assert row.ceiling_percent == pytest.approx(75, abs=2)
    spread = [job(i, 20.0 * i, 10.0) for i in range(12)]
    row = _row(spread, list(_samples(spread, 240.0)))
    assert row.utilisation_percent == pytest.approx(37.5, abs=1)
    assert row.ceiling_percent == pytest.approx(75, abs=3)


def test_energy_of_a_job_is_its_power_over_its_execution() -> None:
    spread = [job(i, 20.0 * i, 10.0) for i in range(12)]
    row = _row(spread, list(_samples(spread, 260.0)))
    assert row.energy_per_job_j.value == pytest.approx(300 * 7.5 + 20 * 2.5, rel=0.03)
    assert row.energy_per_job_j.n == 12


def test_the_drivers_counter_is_believed_before_readings_of_power() -> None:
    spread = [job(i, 20.0 * i, 10.0) for i in range(6)]
    counter = [Sample(t=t / 2, source="nvml", name="gpu.0.energy_j", value=1000 + 50.0 * t / 2) for t in range(300)]
    row = _row(spread, [*_samples(spread, 140.0), *counter])
    assert row.energy_per_job_j.value == pytest.approx(500, rel=0.001)
    assert "counter" in row.energy_per_job_j.method


def test_a_job_in_whose_time_the_source_was_silent_has_no_energy() -> None:
    spread = [job(i, 20.0 * i, 10.0) for i in range(12)]
    row = _row(spread, list(_samples(spread, 260.0, silent=(43.0, 48.0))))
    assert row.energy_per_job_j.n == 11
    assert row.energy_per_job_j.value == pytest.approx(300 * 7.5 + 20 * 2.5, rel=0.03)


def test_short_jobs_and_jobs_side_by_side_have_no_energy_of_their_own() -> None:
    short = one_by_one([0.6] * 40)
    row = _row(short, list(_samples(short, 24.0)))
    assert row.energy_per_job_j.value is None and "too coarse" in row.energy_per_job_j.reason
    beside = [job(i, 5.0 * i, 10.0) for i in range(12)]
    row = _row(beside, list(_samples(beside, 70.0)))
    assert row.energy_per_job_j.value is None and "side by side" in row.energy_per_job_j.reason


def test_memory_of_a_job_is_the_most_that_was_read_in_it() -> None:
    spread = [job(i, 20.0 * i, 10.0) for i in range(12)]
    row = _row(spread, list(_samples(spread, 240.0)))
    assert row.vram_per_job_bytes.value == 9e9 and row.vram_peak_bytes == 9e9
    peaks = [Sample(t=20.0 * i + 10, source="probe", name="gpu.0.prompt_vram_peak_bytes", value=7e9) for i in range(12)]
    assert _row(spread, peaks).torch_vram_per_job_bytes.value == 7e9


def test_the_servers_own_readings_go_before_ours() -> None:
    spread = [job(i, 20.0 * i, 10.0) for i in range(6)]
    other = [
        Sample(t=t / 2, source="nvml", name="gpu.0.utilisation_percent", value=3.0) for t in range(240)
    ]  # another GPU
    row = _row(spread, [*other, *_samples(spread, 120.0, source="probe")])
    assert row.source == "probe" and row.utilisation_percent == pytest.approx(37.5, abs=1)


def test_unknown_is_not_zero() -> None:
    spread = [job(i, 20.0 * i, 10.0) for i in range(6)]
    nothing = [Sample(t=t / 2, source="nvml", name="gpu.0.power_w", value=None) for t in range(240)]
    row = _row(spread, nothing)
    assert row.power_w is None and row.utilisation_percent is None and row.energy_per_job_j.value is None


def test_a_busy_server_with_an_idle_gpu_is_saturated_and_the_ninety_percent_is_said_apart() -> None:
    packed = one_by_one([10.0] * 12)
    jobs, row = _jobs(packed), _row(packed, list(_samples(packed, 120.0)))
    found = saturation(jobs, 120.0, {"0": row}, resumed=False)
    assert found.server_busy == pytest.approx(1.0, abs=0.002) and found.server_saturated
    assert found.gpus["0"].at_ceiling and found.gpus["0"].over_90_percent is False
    assert found.saturated


def test_half_load_is_not_called_saturated() -> None:
    spread = [job(i, 20.0 * i, 10.0) for i in range(12)]
    found = saturation(_jobs(spread), 240.0, {"0": _row(spread, list(_samples(spread, 240.0)))}, resumed=False)
    assert found.server_busy == pytest.approx(0.5, abs=0.01)
    assert found.server_saturated is False and found.gpus["0"].at_ceiling is False and found.saturated is False


def test_what_is_not_known_is_not_judged() -> None:
    found = saturation(_jobs([]), None, {}, resumed=False)
    assert found.server_busy is None and found.saturated is None
    assert saturation(_jobs(one_by_one([10.0] * 6)), 60.0, {}, resumed=True).server_busy is None
