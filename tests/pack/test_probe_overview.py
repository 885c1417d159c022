"""The last hour in small: bounded, honest about how much it covers, and without statistics that too few jobs carry."""

from __future__ import annotations

from typing import Any

import pytest

from comfyload_probe import overview as overviews
from comfyload_probe.overview import Overview
from comfyload_probe.settings import Settings
from comfyload_probe.tally import CLASS_LIMIT, Tally


class Server:
    """Makes rows on a clock of its own."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.overview = Overview(clock=lambda: self.at)

    def row(self, event: str, **fields: Any) -> None:
        self.overview.add({"event": event, "mono_s": self.at, **fields}, 1e9 + self.at)

    def job(self, prompt_id: str = "p", status: str = "ok", duration: float = 100.0, **queued: Any) -> None:
        self.row("prompt.queued", prompt_id=prompt_id, **queued)
        self.row("prompt.started", prompt_id=prompt_id, waited_ms=50.0)
        self.row("node", prompt_id=prompt_id, node="1", class_type="Run", status="run", duration_ms=duration)
        failure = {"error": "no", "exception_type": "E", "class_type": "Run"} if status == "error" else {}
        ended = {"status": status, "duration_ms": duration, "nodes_cached": 0, **failure}
        self.row("prompt.ended", prompt_id=prompt_id, **ended)

    @property
    def now(self) -> dict[str, Any]:
        return self.overview.now()


def test_nothing_yet() -> None:
    nothing = {"n": 0, "p50": None, "p95": None}
    expected = {"jobs": [], "duration_ms": nothing, "latency_ms": nothing, "failures": [], "retries": 0, "samples": []}
    assert Server().now == {"window_s": 0.0, **expected}


def test_a_job_and_its_failure() -> None:
    server = Server()
    server.job("a")
    server.job("b", "error", attempt=2, retry_of="a")
    newest, oldest = server.now["jobs"]
    assert newest | {"nodes": []} == {
        "prompt_id": "b",
        "status": "error",
        "ended_unix_s": 1e9 + 1000,
        "waited_ms": 50.0,
        "duration_ms": 100.0,
        "error": "no",
        "nodes_cached": 0,
        "nodes": [],
        "attempt": 2,
        "retry_of": "a",
    }
    assert (oldest["prompt_id"], oldest["attempt"]) == ("a", None)
    assert server.now["failures"] == [
        {
            "prompt_id": "b",
            "ended_unix_s": 1e9 + 1000,
            "error": "no",
            "exception_type": "E",
            "class_type": "Run",
            "attempt": 2,
            "retry_of": "a",
        }
    ]
    assert server.now["retries"] == 1


def test_a_95th_percentile_needs_20_jobs() -> None:
    server = Server()
    for n in range(19):
        server.job(duration=float(n))
    assert server.now["duration_ms"] == {"n": 19, "p50": 9.0, "p95": None}
    server.job(duration=19.0)
    server.job("x", "error", duration=1e6)
    assert server.now["duration_ms"] == {"n": 20, "p50": 9.5, "p95": 18.05}
    assert server.now["latency_ms"]["p50"] == 59.5


def test_the_window_is_an_hour_or_what_there_is_of_it() -> None:
    server = Server()
    server.job("old", "error")
    server.at += 600
    server.job("young")
    assert server.now["window_s"] == 600
    server.at += 3100
    assert (server.now["window_s"], server.now["duration_ms"]["n"], server.now["failures"]) == (3600, 1, [])
    assert [job["prompt_id"] for job in server.now["jobs"]] == ["young", "old"]


def test_a_busy_server_is_seen_over_less_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overviews, "ENDED_LIMIT", 10)
    server = Server()
    for _ in range(30):
        server.at += 1
        server.job()
    assert (server.now["duration_ms"]["n"], server.now["window_s"]) == (10, 10)


def test_everything_is_bounded() -> None:
    server = Server()
    for n in range(1000):
        server.row("prompt.queued", prompt_id=f"waits-{n}", attempt=1)
        server.row("node", prompt_id=f"lost-{n}", node="1", class_type="Run", status="run", duration_ms=1.0)
        server.row("sample", queue_depth=0, gpus=[])
    for n in range(100):
        server.row("node", prompt_id="big", node=str(n), class_type="Run", status="run", duration_ms=float(n))
    server.job("big")
    assert len(server.overview._open) <= overviews.OPEN_LIMIT
    assert len(server.now["samples"]) == 240
    nodes = server.now["jobs"][0]["nodes"]
    assert [node["duration_ms"] for node in nodes] == [100.0, *map(float, range(99, 88, -1))]


def test_samples_are_in_their_order_with_what_the_tab_shows() -> None:
    server = Server()
    gpu = {"index": 0, "utilisation_percent": 5, "power_w": None, "throttle": ["x"]}
    server.row("sample", queue_depth=3, gpus=[gpu])
    expected = {"index": 0, "utilisation_percent": 5, "vram_used_bytes": None, "vram_total_bytes": None}
    expected |= {"power_w": None, "temperature_c": None}
    assert server.now["samples"] == [{"mono_s": 1000.0, "queue_depth": 3, "gpus": [expected]}]


def test_the_counters_fold_classes_beyond_200_into_one() -> None:
    tally = Tally()
    for n in range(1000):
        tally.add({"event": "node", "status": "run", "class_type": f"C{n}", "duration_ms": 500.0})
    seconds = tally.numbers()["node_seconds"]
    assert len(seconds) == CLASS_LIMIT
    assert seconds["C0"] == [1, 0.5]
    assert seconds["other"] == [801, 400.5]


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("COMFYLOAD_PROBE_SAMPLE_HZ", "0", "sample_hz", 0.0),
        ("COMFYLOAD_PROBE_SAMPLE_HZ", "nan", "sample_hz", 2),
        ("COMFYLOAD_PROBE_SAMPLE_HZ", "1e9", "sample_hz", 2),
        ("COMFYLOAD_PROBE_RING", "5", "ring_rows", 5),
        ("COMFYLOAD_PROBE_RING", "-5", "ring_rows", 20000),
        ("COMFYLOAD_PROBE_BUFFER", "many", "buffer_rows", 10000),
        ("COMFYUI_METRICS_LOG_MAX_MB", "0.5", "log_max_bytes", 2**19),
        ("COMFYUI_METRICS_LOG_MAX_AGE_H", "inf", "log_max_age_s", 168 * 3600.0),
        ("COMFYUI_METRICS_LOG_KEEP", "0", "log_keep", 0),
        ("COMFYLOAD_PROBE_OFF", "1", "off", True),
        ("COMFYLOAD_PROBE_OFF", "0", "off", False),
        ("COMFYLOAD_PROBE_TOKEN", " ", "token", None),
    ],
)
def test_settings_keep_their_default_where_the_text_makes_no_sense(
    name: str, text: str, field: str, value: object
) -> None:
    settings = Settings.from_environ({name: text}, "/user")
    assert getattr(settings, field) == value
    default = getattr(Settings.from_environ({}, "/user"), field)
    assert bool(settings.problems) == (value == default and text.strip() not in ("", "0"))
    assert all(name in problem for problem in settings.problems)


def test_the_log_lies_in_the_users_directory_unless_named() -> None:
    assert str(Settings.from_environ({}, "/user").log) == "/user/comfyui_metrics.ndjson"
    assert str(Settings.from_environ({"COMFYUI_METRICS_LOG": "/x/y"}, "/user").log) == "/x/y"
    assert Settings.from_environ({}, None).log is None
    nobody = Settings.from_environ({"COMFYUI_METRICS_LOG": "~nobody-of-that-name/x"}, "/user")
    assert (str(nobody.log), len(nobody.problems)) == ("/user/comfyui_metrics.ndjson", 1)
