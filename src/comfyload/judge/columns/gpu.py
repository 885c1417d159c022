"""What readings of a GPU come to: how busy it was against its own ceiling, and what a job took of it."""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping

import numpy as np
from msgspec import Struct, structs

from comfyload.judge.arrays import Flags, Floats
from comfyload.judge.columns.jobs import Jobs
from comfyload.judge.statistics.means import mean
from comfyload.judge.statistics.stats import Statistic, percentile
from comfyload.record.model import Sample

Windows = tuple[Floats, Floats]
SOURCES = ("probe", "nvml", "scrape", "comfy")
"""Of several sources of one GPU the first is believed: the server's own process knows which GPU it computes on."""
_BY_DRIVER = ("probe", "nvml")
"""Sources that take a GPU of the machine for the server's; ComfyUI tells of its own, and an endpoint was named."""
_GAP = 5.0
"""Readings further apart than this many usual pauses: the source fell silent between them."""
_PER_JOB = 2.0
"""Fewer readings than this in a usual job do not tell what it drew."""
_CEILING_NEEDS = 10


class GpuReading(Struct, frozen=True, kw_only=True):
    """What a sample's name says: which GPU, what of it (`utilisation` in %, `vram_used`, `vram_free`, `vram_total` and
    `prompt_vram_peak` in bytes, `power` in W, `energy` in J since some instant, `temperature` in degrees, `throttled`
    0 or 1), and the factor into that unit.
    """

    gpu: str
    kind: str
    factor: float


class GpuRow(Struct, frozen=True, kw_only=True):
    """One GPU over the counted part of a run; None is not known. `readings` and `unknown` are of its utilisation.

    `utilisation_percent` is the mean share of time in which a kernel ran; `ceiling_percent` the same while a job
    executed, which is the most that these jobs can make of this GPU one after another. `energy_per_job_j` is of the
    whole GPU while the job executed. `vram_per_job_bytes` is the median of the most that readings saw in a job, which
    may have been more between two of them; `torch_vram_per_job_bytes` that of what torch itself counted, exact.
    `alike`: of how many GPUs like it this is one, and nothing tells which is the server's: no judgement rests on it.
    `simulated`: the server is comfyload's simulator; the readings are not of a real GPU.
    """

    source: str
    readings: int
    unknown: int
    utilisation_percent: float | None
    ceiling_percent: float | None
    vram_peak_bytes: float | None
    vram_total_bytes: float | None
    power_w: float | None
    temperature_max_c: float | None
    throttled_share: float | None
    energy_per_job_j: Statistic
    vram_per_job_bytes: Statistic
    torch_vram_per_job_bytes: Statistic
    alike: int = 1
    simulated: bool = False


_GPU = re.compile(r"^(?:gpu|device)[._]?(\d*)[._](\w+)$")
_KINDS = {
    "utilisation": re.compile(r"^(gpu_)?(utili[sz]ation|util|busy)(_percent)?$"),
    "vram_used": re.compile(r"^(vram|memory|mem)_used(_bytes|_mib)?$"),
    "vram_free": re.compile(r"^(vram|memory|mem)_free(_bytes|_mib)?$"),
    "vram_total": re.compile(r"^(vram|memory|mem)(_total)?(_bytes|_mib)?$"),
    "prompt_vram_peak": re.compile(r"^prompt_vram_peak_bytes$"),
    "power": re.compile(r"^power(_draw|_usage)?(_w|_mw)?$"),
    "energy": re.compile(r"^energy_m?j$"),
    "temperature": re.compile(r"^temp(erature)?(_c)?$"),
    "throttled": re.compile(r"^throttled$"),
}
_FACTORS = {"mib": 2.0**20, "mw": 0.001, "mj": 0.001}


def gpu_reading(name: str) -> GpuReading | None:
    """Of a sample's name such as `gpu.0.utilisation_percent`, `gpu.0.vram_used_bytes` or `gpu.0.power_w`."""
    found = _GPU.match(name)
    if found is None:
        return None
    number, rest = found.groups()
    for kind, pattern in _KINDS.items():
        if pattern.match(rest):
            factor = _FACTORS.get(rest.rpartition("_")[2], 1.0)
            return GpuReading(gpu=number or "0", kind=kind, factor=factor)
    return None


class _Series(Struct, frozen=True, kw_only=True):
    """Readings of one kind by one source, in the order of time; `alike`: of how many GPUs its GPU may be any."""

    source: str
    at: Floats
    values: Floats
    alike: int

    def between(self, begin: float | None, end: float | None) -> _Series:
        """Those from the first time to the second; None: from the first on, or to the last."""
        within = (self.at >= (-np.inf if begin is None else begin)) & (self.at <= (np.inf if end is None else end))
        return structs.replace(self, at=self.at[within], values=self.values[within])


class GpuReadings:
    """All readings of GPUs, as columns of time and value. `alike`: GPUs that are but one of so many."""

    def __init__(self, alike: Mapping[str, int] | None = None) -> None:
        self._alike = alike or {}
        self._known: dict[str, GpuReading | None] = {}
        self._columns: dict[tuple[str, str], dict[str, tuple[array[float], array[float]]]] = {}

    def add(self, sample: Sample) -> None:
        """Keep a reading, if it is of a GPU; one without a value is kept as NaN."""
        if sample.name not in self._known:
            self._known[sample.name] = gpu_reading(sample.name)
        known = self._known[sample.name]
        if known is None:
            return
        source, _, server = sample.source.partition("@")
        columns = self._columns.setdefault((f"{server} {known.gpu}" if server else known.gpu, known.kind), {})
        at, values = columns.setdefault(source, (array("d"), array("d")))
        at.append(sample.t)
        values.append(np.nan if sample.value is None else known.factor * sample.value)

    @property
    def gpus(self) -> list[str]:
        """Which there are readings of."""
        return sorted({gpu for gpu, _ in self._columns})

    def best(self, gpu: str, kind: str) -> _Series:
        """The readings of the source that is used; none where no source has a value."""
        columns = self._columns.get((gpu, kind), {})
        believed = [source for source in SOURCES if source in columns] + list(columns)
        for source in sorted(dict.fromkeys(believed), key=lambda source: self._alike_by(gpu, source) > 1):
            at, values = map(np.asarray, columns[source])
            if np.isfinite(values).any():
                order = np.argsort(at, kind="stable")
                return _Series(source=source, at=at[order], values=values[order], alike=self._alike_by(gpu, source))
        return _Series(source="", at=np.empty(0), values=np.empty(0), alike=1)

    def _alike_by(self, gpu: str, source: str) -> int:
        return self._alike.get(gpu, 1) if source in _BY_DRIVER else 1


def gpu_rows(
    readings: GpuReadings, jobs: Jobs, counted: tuple[float | None, float | None], servers: Mapping[str, bool]
) -> dict[str, GpuRow]:
    """A row for each GPU, of several servers with the server's name before its own; `counted`: from when until when
    jobs were counted, in seconds of the run. `servers`: by name, whether it is simulated.
    """
    rows = {}
    for gpu in readings.gpus:
        every = {kind: readings.best(gpu, kind) for kind in _KINDS}
        name = gpu.rpartition(" ")[0] if len(servers) > 1 else next(iter(servers))
        if name in servers:
            rows[gpu] = _row(every, jobs, counted, list(servers).index(name), servers[name])
    return rows


def _row(
    every: Mapping[str, _Series], jobs: Jobs, times: tuple[float | None, float | None], server: int, simulated: bool
) -> GpuRow:
    """From the series of each kind; `server`: its place among the run's."""
    counted = {kind: series.between(*times) for kind, series in every.items()}
    windows, overlap, busy = _windows(jobs, server), jobs.overlaps(server) > 0, counted["utilisation"]
    begins, ends = windows
    if len(begins) >= 3:  # during the first and the last the server may have had nothing to do
        begins, ends = begins[1:-1], ends[1:-1]
    ceiling = busy.values[_inside(busy.at, begins, ends) & np.isfinite(busy.values)]
    used, free, total = counted["vram_used"].values, counted["vram_free"], counted["vram_total"]
    if not len(used) and free.source == total.source and len(free.at) == len(total.at):
        used = total.values - free.values
    peaks = counted["prompt_vram_peak"].values
    return GpuRow(
        source=busy.source or counted["power"].source or every["vram_used"].source,
        readings=int(np.isfinite(busy.values).sum()),
        unknown=int(np.isnan(busy.values).sum()),
        utilisation_percent=_mean(busy.values),
        ceiling_percent=_mean(ceiling) if len(ceiling) >= _CEILING_NEEDS else None,
        vram_peak_bytes=_most(used),
        vram_total_bytes=_most(every["vram_total"].values),
        power_w=_mean(counted["power"].values),
        temperature_max_c=_most(counted["temperature"].values),
        throttled_share=_mean(counted["throttled"].values),
        energy_per_job_j=_energy(every["energy"], every["power"], windows, overlap=overlap),
        vram_per_job_bytes=_vram(every["vram_used"], windows, overlap=overlap),
        torch_vram_per_job_bytes=percentile(peaks[np.isfinite(peaks)], 0.5, "B"),
        alike=max(series.alike for series in every.values()),
        simulated=simulated,
    )


def _windows(jobs: Jobs, server: int) -> Windows:
    """When each completed counted job of the server executed, in the order of completion, on the run's clock.

    Its end as we saw it, less the execution's length by the server's clock: no two clocks are compared.
    """
    done, execution = jobs.instant("done"), jobs.metric("execution")
    known = jobs.completed & ~np.isnan(done) & ~np.isnan(execution)
    if jobs.servers > 1:
        known &= jobs.counted.server == server
    return done[known] - execution[known], done[known]


def _inside(at: Floats, begins: Floats, ends: Floats) -> Flags:
    """Whether each instant lies in some window."""
    return np.searchsorted(np.sort(begins), at, "right") > np.searchsorted(np.sort(ends), at, "left")


def _energy(counter: _Series, power: _Series, windows: Windows, *, overlap: bool) -> Statistic:
    """By the driver's own counter, or else by its readings of power, straight lines between them."""
    method, series = "mean of the energy counter's growth over the execution", counter
    at, spent, holes = counter.at, counter.values, np.zeros(len(counter.at))
    if not len(at):
        method, series = "mean of power over the execution, trapezoid", power
        at, spent, holes = _integral(power.at, power.values)
    why = _not_per_job(at, series.alike, windows, overlap=overlap)
    if why:
        return Statistic(value=None, n=0, unit="J", method=method, reason=why)
    begins, ends = windows
    joules = _at(ends, at, spent) - _at(begins, at, spent)
    whole = np.interp(ends, at, holes) == np.interp(begins, at, holes)
    return structs.replace(mean(joules[whole & np.isfinite(joules) & (joules >= 0)], "J"), method=method)


def _integral(at: Floats, power: Floats) -> tuple[Floats, Floats, Floats]:
    """Of the known readings: their instants, the energy since the first, and how often the source was silent."""
    unknown = np.cumsum(np.isnan(power))[~np.isnan(power)]
    at, power = at[~np.isnan(power)], power[~np.isnan(power)]
    if len(at) < 2:
        return at, np.zeros(len(at)), np.zeros(len(at))
    pauses = np.diff(at)
    silent = (pauses > _GAP * float(np.median(pauses))) | (np.diff(unknown) > 0)
    spent = np.cumsum(np.where(silent, 0.0, 0.5 * (power[1:] + power[:-1]) * pauses))
    return at, np.concatenate([[0.0], spent]), np.concatenate([[0.0], np.cumsum(silent)])


def _vram(used: _Series, windows: Windows, *, overlap: bool) -> Statistic:
    why = _not_per_job(used.at, used.alike, windows, overlap=overlap)
    if why:
        return Statistic(value=None, n=0, unit="B", method="most of the readings in a job, median", reason=why)
    first, last = np.searchsorted(used.at, windows[0], "left"), np.searchsorted(used.at, windows[1], "right")
    peaks = [_most(used.values[a:b]) for a, b in zip(first.tolist(), last.tolist(), strict=True)]
    return percentile(np.array([peak for peak in peaks if peak is not None]), 0.5, "B")


def _not_per_job(at: Floats, alike: int, windows: Windows, *, overlap: bool) -> str:
    """Why readings cannot be shared out among jobs; "" if they can."""
    if len(at) < 2:
        return "no readings"
    if overlap:
        return "jobs executed side by side: what each took is not known"
    if not len(windows[0]):
        return "no job with a known execution"
    pause, usual = float(np.median(np.diff(at))), float(np.median(windows[1] - windows[0]))
    if usual < _PER_JOB * pause:
        return f"a reading every {pause:.2g} s is too coarse for jobs of {usual:.2g} s"
    return f"the GPU is one of {alike} identical ones: it is not known which the server uses" if alike > 1 else ""


def _at(t: Floats, at: Floats, values: Floats) -> Floats:
    """The values at other instants, by straight lines; NaN beyond the readings, and where the source fell silent."""
    out = np.interp(t, at, values, left=np.nan, right=np.nan)
    after = np.clip(np.searchsorted(at, t, "left"), 1, len(at) - 1)
    silent = at[after] - at[after - 1] > _GAP * float(np.median(np.diff(at)))
    out[silent] = np.nan
    return out


def _mean(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _most(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else None
