"""The probe's rows on the run's clock, from a scripted server on virtual time and from the simulated one."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from comfyload import clock
from comfyload.comfy.wire.calls import Reply, Request, TransportError
from comfyload.record.model import LogLine
from comfyload.sim import Server
from comfyload.telemetry.collector import Collector
from comfyload.telemetry.probe import PAGE, Offset, Probe, better, offset_of
from tests.support.direct import Direct
from tests.unit.test_sim_helpers import settled, sleep_graph, submit
from tests.unit.test_telemetry_watch import Received

AHEAD_S = 1e6


class Ring:
    """A probe whose clock is `AHEAD_S` before ours; requests and replies travel for the given seconds."""

    def __init__(self, there_s: float = 0.0, back_s: float = 0.0) -> None:
        self.boot, self.ahead = "aaaaaaaa", AHEAD_S
        self.rows: list[dict[str, Any]] = []
        self.seq = 0
        self.oldest = 1
        self.status = 200
        self.token = False
        self.up = True
        self.paths: list[str] = []
        self.there_s, self.back_s = there_s, back_s

    def emit(self, event: str, **fields: Any) -> None:
        self.seq += 1
        about = {"schema": 1, "event": event, "mono_s": clock.now() + self.ahead, "boot": self.boot, "seq": self.seq}
        self.rows.append(about | fields)

    def restart(self) -> None:
        self.boot, self.ahead, self.rows, self.seq = "bbbbbbbb", -50.0, [], 0

    async def call(self, request: Request) -> Reply:
        self.paths.append(request.path)
        await asyncio.sleep(self.there_s)
        if not self.up:
            raise TransportError("http://server/: connection refused", sent=False)
        parts = urlsplit(request.path)
        query = {key: value[0] for key, value in parse_qs(parts.query).items()}
        body: dict[str, Any] = {"schema": 1, "boot": self.boot}
        if self.token:
            reply = Reply(status=401, body=b'{"error": "a token is needed", "hint": ""}')
        elif self.status != 200:
            reply = Reply(status=self.status, body=b"404: Not Found")
        else:
            if parts.path.endswith("clock"):
                body |= {"mono_s": clock.now() + self.ahead, "unix_s": 0.0, "seq": self.seq}
            else:
                after = int(query["after"]) if query["boot"] == self.boot else 0
                there = [row for row in self.rows if row["seq"] >= self.oldest]
                rows = [row for row in there if row["seq"] > after][: int(query["limit"])]
                missed = max(0, self.oldest - after - 1) if rows else 0
                body |= {"next": rows[-1]["seq"] if rows else after, "missed": missed, "rows": rows}
            reply = Reply(status=200, body=json.dumps(body).encode())
        await asyncio.sleep(self.back_s)
        return reply


def follow(ring: Any, script: Any, *, since: tuple[str, int] | None = None) -> tuple[Received, Probe]:
    """Collector a probe while `script` runs."""
    received = Received()

    async def main() -> Probe:
        run = clock.stopwatch()
        probe = Probe(ring, run, since)
        watch = Collector(
            [probe],
            run,
            emit=received.samples.append,
            emit_log=received.lines.append,
            note=received.observations.append,
        )
        await watch.begin()
        await script()
        await watch.end()
        return probe

    return received, clock.run_virtual(main())


def events(received: Received) -> list[tuple[float | None, str]]:
    return [(None if line.t is None else round(line.t, 4), line.row["event"]) for line in received.lines]


def test_rows_are_told_on_the_runs_clock_whatever_the_servers_says() -> None:
    ring = Ring(there_s=0.02, back_s=0.02)
    ring.rows = [{"event": "probe.started", "seq": 1, "boot": ring.boot, "mono_s": 3.0}]
    ring.seq = 1

    async def script() -> None:
        await asyncio.sleep(1.3 - 0.2)
        ring.emit("prompt.queued", prompt_id="a")
        await asyncio.sleep(1)
        ring.emit("prompt.ended", prompt_id="a", vram_peak_bytes=5)

    received, _ = follow(ring, script)
    assert events(received) == [(1.3, "prompt.queued"), (2.3, "prompt.ended")]
    assert all(line.source == "probe" for line in received.lines)
    assert received.values("clock_error_s")[0][1] == pytest.approx(0.02)
    assert received.values("clock_drift_s")[0][1] == 0.0
    assert received.values("gpu.0.prompt_vram_peak_bytes") == [(2.3, 5.0)]


def test_an_uneven_way_is_within_the_error_that_is_told() -> None:
    ring = Ring(there_s=0.03, back_s=0.01)

    async def script() -> None:
        ring.emit("node")

    received, _ = follow(ring, script)
    error = received.values("clock_error_s")[0][1] or 0.0
    assert error == pytest.approx(0.02)
    (line,) = received.lines
    assert line.t is not None and abs(line.t - 0.2) <= error


class _Uneven(Ring):
    """Of its answers one in three comes fast."""

    requests = 0

    async def call(self, *given: Any, **named: Any) -> Reply:
        self.requests += 1
        self.there_s = self.back_s = 0.1 if self.requests % 3 else 0.001
        return await super().call(*given, **named)


def test_the_shortest_of_several_exchanges_counts() -> None:
    received, _ = follow(_Uneven(), lambda: asyncio.sleep(0))
    assert received.values("clock_error_s")[0][1] == pytest.approx(0.001)


def test_a_bad_exchange_later_replaces_a_good_one_only_when_that_is_old() -> None:
    measured = offset_of(1.0, 1.002, 1001.0)
    assert measured.seconds == pytest.approx(1.001 - 1001.0)
    assert measured.error_s == pytest.approx(0.001)
    bad = Offset(seconds=-1000.05, error_s=0.05, at=30.0)
    assert better(measured, bad) is measured
    assert better(measured, Offset(seconds=-1000.0, error_s=0.05, at=600.0)).seconds == -1000.0
    good = Offset(seconds=-1000.0, error_s=0.0005, at=2.0)
    assert better(measured, good) is good


def test_the_offset_is_measured_again_and_its_drift_told() -> None:
    ring = Ring(there_s=0.001, back_s=0.001)

    async def script() -> None:
        await asyncio.sleep(29)
        ring.ahead -= 0.002
        await asyncio.sleep(10)

    received, _ = follow(ring, script)
    assert [value for _, value in received.values("clock_drift_s")] == [0.0, pytest.approx(0.002)]


def test_samples_become_readings_under_the_names_that_all_sources_share() -> None:
    ring = Ring()
    gpu = {"index": 1, "utilisation_percent": 97, "vram_used_bytes": 6, "vram_total_bytes": 8, "power_w": None}

    async def script() -> None:
        for cpu_s in (10.0, 10.75):
            ring.emit(
                "sample",
                queue_depth=2,
                process={"rss_bytes": 7, "cpu_s": cpu_s},
                gpus=[gpu | {"throttle": ["applications_clocks"] if cpu_s == 10.0 else ["sw_power_cap"]}],
            )
            await asyncio.sleep(0.5)

    received, _ = follow(ring, script)
    assert received.lines == []
    assert received.values("gpu.1.utilisation_percent") == [(0.0, 97), (0.5, 97)]
    assert received.values("gpu.1.vram_free_bytes") == [(0.0, 2), (0.5, 2)]
    assert received.values("gpu.1.power_w") == [(0.0, None)]
    assert received.values("gpu.1.throttled") == [(0.0, 0), (0.5, 1)]
    ((at, cpu),) = received.values("server.cpu_percent")
    assert at == 0.5
    assert cpu == pytest.approx(150.0)
    assert received.values("queue_remaining") == [(0.0, 2), (0.5, 2)]


def test_another_process_is_noticed_and_read_from_its_start_on_its_own_clock() -> None:
    ring = Ring(there_s=0.001, back_s=0.001)

    async def script() -> None:
        for _ in range(30):
            ring.emit("node")
        await asyncio.sleep(1.5)
        ring.restart()
        ring.emit("probe.started")
        await asyncio.sleep(1.5)
        ring.emit("prompt.queued", prompt_id="x")
        ring.emit("prompt.ended", prompt_id="x")

    received, probe = follow(ring, script)
    (restart,) = [t for t, event in events(received) if event == "probe.started"]
    assert restart == pytest.approx(1.51, abs=0.01)
    assert [event for _, event in events(received)][-2:] == ["prompt.queued", "prompt.ended"]
    assert received.said == ["probe: the server's process is another than before; its rows are read from their start"]
    assert probe.has_taken("aaaaaaaa", 30) and probe.has_taken("bbbbbbbb", 3)
    assert not probe.has_taken("aaaaaaaa", 31)


def test_rows_that_had_left_the_ring_are_counted() -> None:
    ring = Ring()

    async def script() -> None:
        for _ in range(50):
            ring.emit("node")
        ring.oldest = 38
        await asyncio.sleep(1.5)

    received, probe = follow(ring, script)
    assert len(received.lines) == 13
    assert received.said == [
        "probe: 37 rows had left its ring before they were read: COMFYLOAD_PROBE_RING makes it longer"
    ]
    assert not probe.has_taken(ring.boot, 37) and probe.has_taken(ring.boot, 38)


def test_many_rows_come_in_pages() -> None:
    ring = Ring(there_s=0.001)

    async def script() -> None:
        for _ in range(2 * PAGE + 3):
            ring.emit("node")
        await asyncio.sleep(1.1)

    received, _ = follow(ring, script)
    assert [line.row["seq"] for line in received.lines] == list(range(1, 2 * PAGE + 4))


def test_the_last_rows_are_there_although_they_are_numbered_late() -> None:
    ring = Ring()

    async def script() -> None:
        asyncio.get_running_loop().call_later(0.1, lambda: ring.emit("prompt.started", prompt_id="z"))
        asyncio.get_running_loop().call_later(0.3, lambda: ring.emit("prompt.ended", prompt_id="z"))
        await asyncio.sleep(0)

    received, _ = follow(ring, script)
    assert [event for _, event in events(received)] == ["prompt.started", "prompt.ended"], received.said


def test_rows_from_before_the_run_are_left_out_even_when_they_are_numbered_in_it() -> None:
    ring = Ring()

    async def script() -> None:
        ring.emit("node")
        ring.rows[-1]["mono_s"] -= 0.05
        ring.emit("node")

    received, probe = follow(ring, script)
    assert [line.row["seq"] for line in received.lines] == [2]
    assert probe.has_taken(ring.boot, 1)


def test_a_run_that_is_resumed_gets_what_it_missed() -> None:
    ring = Ring()
    ring.rows = [{"event": "node", "seq": n, "boot": ring.boot, "mono_s": AHEAD_S - 100 + n} for n in range(1, 21)]
    ring.seq = 20

    async def script() -> None:
        await asyncio.sleep(0)

    received, _ = follow(ring, script, since=(ring.boot, 17))
    assert [line.row["seq"] for line in received.lines] == [18, 19, 20]
    assert received.lines[0].t == pytest.approx(-82.0)


def test_a_token_that_is_missing_is_asked_for_once() -> None:
    ring = Ring()
    ring.token = True

    async def script() -> None:
        await asyncio.sleep(10)

    received, _ = follow(ring, script)
    assert received.said == ["probe: it requires a token: --header X-Comfyload-Token=env:NAME"]


def test_a_server_without_a_probe_is_asked_once() -> None:
    ring = Ring()
    ring.status = 404

    async def script() -> None:
        await asyncio.sleep(100)

    received, probe = follow(ring, script)
    assert (ring.paths, received.said, received.samples, probe.present) == (["comfyload/v1/clock"], [], [], False)


def test_a_probe_that_disappears_leaves_a_gap_and_what_it_kept_comes_later() -> None:
    ring = Ring()

    async def script() -> None:
        ring.emit("sample", queue_depth=1, process={}, gpus=[])
        await asyncio.sleep(1.5)
        ring.up = False
        ring.emit("node")
        await asyncio.sleep(2)
        ring.up = True
        await asyncio.sleep(3)

    received, _ = follow(ring, script)
    assert [value for _, value in received.values("queue_remaining")] == [1.0, None, None]
    assert events(received) == [(1.5, "node")]
    assert received.said == ["probe: http://server/: connection refused"]


def test_the_simulated_probe_tells_of_every_job_when_it_ran() -> None:
    received = Received()

    async def main() -> None:
        async with Server(probe=True) as server:
            run = clock.stopwatch()
            zero = clock.now()
            watch = Collector(
                [Probe(Direct(server, latency_s=0.001), run)],
                run,
                emit=received.samples.append,
                emit_log=received.lines.append,
                note=received.observations.append,
            )
            await watch.begin()
            for seed in range(3):
                await submit(server, sleep_graph(0.7, seed))
            await settled(server, 3)
            await watch.end()
            ends = [line.t for line in received.lines if line.row["event"] == "prompt.ended"]
            assert ends == [pytest.approx((truth.ended or 0.0) - zero, abs=0.0011) for truth in server.truth]

    clock.run_virtual(main())
    assert received.said == []
    assert {sample.source for sample in received.samples} == {"probe"}
    assert isinstance(received.lines[0], LogLine)
