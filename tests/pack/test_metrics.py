"""What Prometheus scrapes is in its format, and leaves out what is not known."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from comfyload_probe.metrics import prometheus

GPU = {
    "index": 0,
    "utilisation_percent": 97,
    "vram_used_bytes": 8 * 2**30,
    "power_w": 321.5,
    "energy_j": 123456.789,
    "temperature_c": None,
    "throttle": ["sw_power_cap", "hw_thermal"],
}
SNAPSHOT: dict[str, Any] = {
    "version": "0.1.0",
    "active": True,
    "dropped": 2,
    "errors": 0,
    "log_bytes": 4096,
    "prompts": {"ok": 5, "error": 1, "interrupted": 0},
    "nodes": {"run": 20, "cached": 7, "error": 1, "interrupted": 0},
    "node_seconds": {'A "quoted"\\\nname': [3, 1.5], "KSampler": [5, 25]},
    "prompt_seconds": [5, 60.25],
    "queue_depth": 3,
    "models_loaded": 4,
    "sample": {
        "timestamp": "2026-11-23T12:00:00.500000Z",
        "process": {"rss_bytes": 2**30, "cpu_s": 12.5},
        "gpus": [GPU, {"index": 1, "throttle": None, "utilisation_percent": 0}],
    },
}


def parsed(snapshot: dict[str, Any]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = prometheus(snapshot)
    assert text.endswith("\n")
    return {
        (sample.name.removeprefix("comfyload_probe_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_everything_that_is_known_is_there() -> None:
    found = parsed(SNAPSHOT)
    assert found["info", (("version", "0.1.0"),)] == 1
    assert found["active", ()] == 1
    assert found["rows_dropped_total", ()] == 2
    assert found["prompts_total", (("status", "error"),)] == 1
    assert found["nodes_total", (("status", "cached"),)] == 7
    assert found["queue_depth", ()] == 3
    assert (found["prompt_seconds_count", ()], found["prompt_seconds_sum", ()]) == (5, 60.25)
    assert found["node_seconds_sum", (("class_type", "KSampler"),)] == 25
    assert found["models_loaded_total", ()] == 4
    assert found["process_rss_bytes", ()] == 2**30
    assert found["gpu_energy_joules_total", (("gpu", "0"),)] == 123456.789
    assert found["gpu_throttled", (("gpu", "0"), ("reason", "hw_thermal"))] == 1
    assert found["sample_timestamp_seconds", ()] == 1795435200.5


def test_zero_is_a_value_and_unknown_is_none() -> None:
    found = parsed(SNAPSHOT)
    assert found["gpu_utilisation_percent", (("gpu", "1"),)] == 0
    assert not any(name == "gpu_temperature_celsius" for name, _ in found)
    assert ("gpu_vram_used_bytes", (("gpu", "1"),)) not in found


def test_a_name_of_a_class_may_hold_anything() -> None:
    assert parsed(SNAPSHOT)["node_seconds_count", (("class_type", 'A "quoted"\\\nname'),)] == 3


def test_each_metric_says_its_type_and_what_it_is_once() -> None:
    lines = prometheus(SNAPSHOT).splitlines()
    heads = [line.split(" ")[2] for line in lines if line.startswith("# TYPE ")]
    assert len(heads) == len(set(heads))
    assert heads == [line.split(" ")[2] for line in lines if line.startswith("# HELP ")]
    counters = [line.split(" ")[2] for line in lines if line.startswith("# TYPE ") and line.endswith(" counter")]
    assert all(name.endswith("_total") for name in counters)


def test_a_probe_that_knows_nothing_yet_has_a_page_too() -> None:
    empty = {**SNAPSHOT, "sample": None, "queue_depth": None, "log_bytes": None, "node_seconds": {}}
    found = parsed(empty)
    assert ("queue_depth", ()) not in found
    assert not any(name.startswith(("gpu_", "node_seconds", "sample_")) for name, _ in found)
    assert parsed({})["info", (("version", "unknown"),)] == 1
