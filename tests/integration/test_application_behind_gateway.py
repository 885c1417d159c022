"""An application that only polls, before and behind a gateway, over real sockets; its servers are killed."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from msgspec import structs

from comfyload.retry.policy import default, encode
from tests.support.application import Application, PageFailed
from tests.support.commands import Forked
from tests.support.rig import sleeper
from tests.support.servers import fronted

pytestmark = pytest.mark.long  # servers and gateways are processes that are killed

SERVICE_S = 3.0
PNG = b"\x89PNG"


def page(seconds: float = 0.3, **more: Any) -> dict[str, Any]:
    graph = sleeper(seconds)
    graph["2"]["inputs"]["seed"] = secrets.randbelow(2**31)
    return graph | more


def failing() -> dict[str, Any]:
    fails = {"class_type": "SimFail", "inputs": {"image": ["1", 0], "message": "no such thing", "seed": 1}}
    return page() | {"2": fails}


@contextmanager
def simulators(folder: Path, count: int) -> Iterator[dict[str, Forked]]:
    """Simulators at their own pace, by URL."""
    with ExitStack() as stack:
        found = {}
        for _ in range(count):
            process = Forked(["sim", "--port", "0"], folder)
            stack.callback(end, process)
            found[process.first_line()] = process
        yield found


def end(process: Forked) -> None:
    if process.poll() is None:
        process.terminate()
    process.communicate(30)


@contextmanager
def gateway(folder: Path, urls: list[str]) -> Iterator[str]:
    """With a policy as `comfyload policy` makes it: a job without progress is hung after a minute, not before."""
    policy = folder / "retry.json"
    policy.write_bytes(encode(structs.replace(default(90.0), liveness_s=60.0)))
    with fronted(urls, "--retry-policy", str(policy)) as url:
        yield url


def answer_of(url: str) -> Any:
    with urlopen(url, timeout=5) as reply:
        return json.load(reply)


def where_it_runs(urls: list[str]) -> str:
    """The first server that runs a prompt."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        for url in urls:
            if answer_of(f"{url}/queue")["queue_running"]:
                return url
        time.sleep(0.05)
    raise AssertionError("nothing runs")


def attempts(url: str) -> list[list[str]]:
    """How the attempts of each job ended, the oldest job first."""
    jobs = answer_of(f"{url}/api/jobs?sort_order=asc")["jobs"]
    return [[attempt["outcome"] for attempt in job["comfyload"]["attempts"]] for job in jobs]


def test_pages_are_made_as_before(tmp_path: Path) -> None:
    with simulators(tmp_path, 1) as bare, gateway(tmp_path, list(bare)) as url:
        made = []
        for server in (*bare, url):
            app = Application(server)
            loaded = {"class_type": "LoadImage", "inputs": {"image": app.upload("drawing.png", made_by_hand())}}
            made.append(app.page(page(**{"1": loaded})))
        assert [picture[:4] for picture in made] == [PNG, PNG]
        assert abs(len(made[0]) - len(made[1])) < 20, "they differ by their seeds alone"


def made_by_hand() -> bytes:
    """A grey picture of 4 by 4."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = (4).to_bytes(4, "big") * 2 + bytes((8, 0, 0, 0, 0))
    return PNG + b"\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(20))) + chunk(b"IEND", b"")


def test_a_page_that_fails_is_known_in_seconds(tmp_path: Path) -> None:
    with simulators(tmp_path, 2) as servers, gateway(tmp_path, list(servers)) as url:
        began = time.monotonic()
        with pytest.raises(PageFailed, match="no such thing"):
            Application(url).page(failing())
        assert time.monotonic() - began <= 3.0
        assert attempts(url) == [["failed", "failed"]], "it failed on both in the same way: no third"
        with pytest.raises(PageFailed, match="not done"):
            Application(next(iter(servers)), limit_s=3.0).page(failing())


def test_a_killed_server_s_page_is_done_by_the_other(tmp_path: Path) -> None:
    with simulators(tmp_path, 2) as servers, gateway(tmp_path, list(servers)) as url, ThreadPoolExecutor(1) as others:
        done = others.submit(Application(url, poll_s=0.1).page, page(SERVICE_S))
        first = where_it_runs(list(servers))
        time.sleep(SERVICE_S / 2)
        servers[first].kill()
        killed = time.monotonic()
        assert done.result()[:4] == PNG
        assert time.monotonic() - killed <= SERVICE_S + 5.0
        assert attempts(url) == [["lost", "completed"]]


def test_pages_of_a_book_retry_independently(tmp_path: Path) -> None:
    """One fails by its graph, those of a server that is killed are made by the other, and no page waits for another."""
    with simulators(tmp_path, 2) as servers, gateway(tmp_path, list(servers)) as url, ThreadPoolExecutor(8) as others:
        app = Application(url, poll_s=0.1)
        book = [others.submit(app.page, failing() if number == 2 else page(1.0)) for number in range(8)]
        first = where_it_runs(list(servers))
        time.sleep(0.5)
        servers[first].kill()
        ends = [page.exception() for page in book]
        assert [type(end) for end in ends] == [PageFailed if number == 2 else type(None) for number in range(8)]
        ended = attempts(url)
        assert sum("lost" in each for each in ended) in (1, 2), "the one that ran there, and one that waited there"
        assert sum(each[-1] == "completed" for each in ended) == 7
        assert max(map(len, ended)) <= 3
