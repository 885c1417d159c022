"""What the probe costs a server: time per node, and memory over many prompts."""

from __future__ import annotations

import gc
import json
import statistics
import time
from pathlib import Path

import pytest

from comfyload_probe.sampler import rss_bytes
from tests.pack.comfyui import ComfyUI, Dynamic, chain, probe_on
from tests.pack.standin import fake_torch, loaded

pytestmark = pytest.mark.long

NODES = 2000
MOST_PER_NODE_S = 50e-6


@pytest.mark.alone
@pytest.mark.parametrize("cuda", [False, True])
def test_a_node_costs_its_thread_less_than_50_us(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cuda: bool) -> None:
    torch = fake_torch(("GPU-1", "card", 2**30))
    torch.cuda.reset_peak_memory_stats = lambda: None
    torch.cuda.memory_stats_as_nested_dict = lambda: {"allocated_bytes": {"all": {"current": 1, "peak": 2}}}
    loaded(monkeypatch, "torch", torch if cuda else None)
    comfyui = ComfyUI(monkeypatch, tmp_path)
    probe = probe_on(comfyui, tmp_path / "log.ndjson", environ={"COMFYLOAD_PROBE_BUFFER": "1000000"})
    probe.start()
    nodes = [str(n) for n in range(NODES)]
    rounds = []
    for number in range(7):
        comfyui.post(chain("Run"))
        item, item_id = comfyui.queue.get(timeout=0)
        state = comfyui.progress.new_state(item[1], Dynamic({node: {"class_type": "Run"} for node in nodes}))
        began = time.thread_time()
        for node in nodes:
            state.start_progress(node)
            state.finish_progress(node)
        rounds.append((time.thread_time() - began) / NODES)
        comfyui.queue.task_done(item_id, {}, status=None)
        assert probe.journal.flush(10), number
    per_node = statistics.median(rounds)
    assert per_node < MOST_PER_NODE_S, f"{1e6 * per_node:.1f} us"
    assert probe.journal.dropped == 0
    probe.stop()


def test_memory_does_not_grow_over_10_000_prompts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    comfyui = ComfyUI(monkeypatch, tmp_path)
    environ = {"COMFYLOAD_PROBE_RING": "1000", "COMFYUI_METRICS_LOG_MAX_MB": "1", "COMFYUI_METRICS_LOG_KEEP": "1"}
    probe = probe_on(comfyui, tmp_path / "log.ndjson", environ=environ)
    probe.start()
    kinds = [("Run", "Cached"), ("Run", "Fail"), ("Interrupt",), ("Hidden", "Run", "Load")]
    seen = []
    for number in range(10_001):
        comfyui.post(chain(*kinds[number % 4]), f"{number:08d}", {"comfyload": {"attempt": number % 3}})
        comfyui.work()
        comfyui.post(chain("Run"), f"gone-{number}")
        comfyui.delete(f"gone-{number}")
        if number % 100 == 0:
            assert probe.journal.flush(10)
        if number in (5000, 10_000):
            gc.collect()
            seen.append(rss_bytes() or 0)
    comfyui.ran.clear()
    grown = seen[1] - seen[0]
    assert grown < 3 * 2**20, f"{grown / 2**20:.1f} MiB"
    assert probe.journal.dropped == 0
    assert probe._tracker._waiting == probe._tracker._running == probe._tracker._by_id == {}
    assert len(json.dumps(probe.overview())) < 200_000
    assert sum(probe.snapshot()["prompts"].values()) == 10_001
    probe.stop()
