"""What one large prompt costs a gateway in memory: little more than twice its size at any time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from comfyload.gateway.database import LONG as LONG_GRAPH
from comfyload.gateway.forms import LONG, MANY, dumps, dumps_graph
from comfyload.gateway.store import Store
from tests.integration.test_gateway_store import row
from tests.support.commands import COMMAND
from tests.support.rig import sleeper
from tests.support.servers import simulator

pytestmark = pytest.mark.long  # prompts of a hundred megabytes

SIZE = 60_000_000


def data(text: str) -> dict[str, Any]:
    return {
        "class_type": "EmptyImage",
        "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0, "data": text},
    }


GRAPHS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "one long text": {"1": data('a"\\\n\u00e4\ud83d\U0001f600' * LONG)},
    "a text of just that length": {"1": data("x" * LONG), "2": data("x" * (LONG + 1))},
    "many nodes": {f"n\u00e4{number}": data("x") for number in range(MANY + 1)},
    "deeper": {"1": {"class_type": "A", "inputs": {"a": {"b": {"c": "x" * 2 * LONG}}, "list": ["y" * 2 * LONG]}}},
    "odd": {"1": {"inputs": {"x": float("nan"), "y": [], "z": {}, "n": None}, "_meta": {"title": "t" * 2 * LONG}}},
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_is_written_in_pieces_is_the_same(name: str) -> None:
    assert dumps_graph(GRAPHS[name]) == dumps(GRAPHS[name])


@pytest.mark.parametrize("size", [0, 1, LONG_GRAPH, LONG_GRAPH + 1, 3 * LONG_GRAPH + 7])
def test_a_graph_of_any_length_is_kept_as_it_is(size: int, tmp_path: Path) -> None:
    store, kept = Store(tmp_path / "jobs.sqlite"), row(graph=bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    before, after = row(graph=b"before"), row(graph=b"after")
    for each in (before, kept, after):
        store.add(each)
    store.began(kept.id, "gpu1", "http://127.0.0.1:8188/")
    for each in (before, kept, after):
        assert store.payload(each.id)[0] == each.graph
    found = store.find(kept.id)
    assert found is not None and found.graph == kept.graph and found.begun
    store.end(kept.id, "completed", b"{}", b"{}", attention=False, keep_payload=False)
    store.drop(before.id)
    assert [store.payload(each.id)[0] for each in (before, kept, after)] == [b"", b"", b"after"]
    assert store._db.one("SELECT count(*) FROM graphs") == (1,)
    store.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("nodes", [1, 1000])
def test_a_large_prompt_is_held_twice_at_most(nodes: int, tmp_path: Path) -> None:
    graph = sleeper(0.2) | {f"n{number}": data("y" * (SIZE // nodes)) for number in range(nodes)}
    body = json.dumps({"prompt": graph}).encode()
    with simulator(speed=10) as url:
        words = ["gateway", "--server", url, "--ledger", str(tmp_path / "ledger"), "--port", "0", "--drain", "0"]
        gateway = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, text=True)
        try:
            assert gateway.stdout is not None
            address = gateway.stdout.readline().strip()
            before = memory(gateway.pid, "VmRSS")
            answer = json.loads(call(f"{address}/prompt", body))
            assert answer["node_errors"] == {}
            while json.loads(call(f"{address}/api/jobs/{answer['prompt_id']}"))["status"] == "pending":
                time.sleep(0.1)
            assert memory(gateway.pid, "VmHWM") - before < 2.2 * len(body)
        finally:
            gateway.terminate()
            gateway.communicate(timeout=60)


def call(url: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        content: bytes = reply.read()
        return content


def memory(pid: int, what: str) -> int:
    """In bytes."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
