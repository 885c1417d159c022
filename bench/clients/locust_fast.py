"""Locust's FastHttpUser with its statistics, and a websocket-client socket for each user."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, TextIO

import gevent
import locust
import locust.contrib.fasthttp
import websocket
from locust.env import Environment

from bench.clients.following import job
from bench.clients.given import Given, given, seeded

words: Given
seeds: Iterator[int]
out: TextIO


class Follower(locust.contrib.fasthttp.FastHttpUser):  # type: ignore[misc]  # gevent's clients have no types here
    """Sends jobs one after the other until there are no more."""

    def on_start(self) -> None:
        self.graph, self.client_id = words.graph, uuid.uuid4().hex
        self.socket = websocket.create_connection(words.events + self.client_id)

    def on_stop(self) -> None:
        self.socket.close()

    def send(self) -> None:
        seed = next(seeds, None)
        if seed is None:
            raise locust.exception.StopUser
        seeded(self.graph)["seed"] = seed
        out.write(job(self._call, self.socket.recv, self.graph, self.client_id, fetch=words.fetch))

    tasks = (send,)

    def _call(self, method: str, path: str, body: bytes | None) -> bytes:
        name = path.rpartition("/")[0] or path  # one row of statistics for all ids
        reply: Any = self.client.request(method, path, data=body, name=name)
        reply.raise_for_status()
        content: bytes = reply.content
        return content


def main() -> None:
    global words, seeds, out
    words = given()
    seeds = iter(range(words.jobs))
    with words.out.open("w") as out:
        environment = Environment(user_classes=[Follower], host=words.server)
        runner = environment.create_local_runner()
        runner.start(words.in_flight, spawn_rate=words.in_flight)
        while runner.state != "running" or runner.user_count:
            gevent.sleep(0.05)
        runner.quit()
        if environment.stats.total.num_failures or runner.exceptions:
            raise SystemExit(f"failures: {environment.stats.errors} {runner.exceptions}")


if __name__ == "__main__":
    main()
