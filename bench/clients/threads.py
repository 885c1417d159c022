"""A thread, a requests session and a websocket-client socket for each user."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import TextIO

import requests
import websocket

from bench.clients.following import job
from bench.clients.given import Given, given, seeded

writing = threading.Lock()


def user(words: Given, seeds: Iterator[int], out: TextIO) -> None:
    graph, client_id, session = words.graph, uuid.uuid4().hex, requests.Session()
    session.trust_env = False
    socket = websocket.create_connection(words.events + client_id)

    def call(method: str, path: str, body: bytes | None) -> bytes:
        reply = session.request(method, words.server + path, data=body)
        reply.raise_for_status()
        content: bytes = reply.content
        return content

    for seed in seeds:
        seeded(graph)["seed"] = seed
        line = job(call, socket.recv, graph, client_id, fetch=words.fetch)
        with writing:
            out.write(line)
    socket.close()


def main() -> None:
    words = given()
    seeds = iter(range(words.jobs))
    with words.out.open("w") as out:
        threads = [threading.Thread(target=user, args=(words, seeds, out)) for _ in range(words.in_flight)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
