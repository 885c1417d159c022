"""Made-up jobs, a function of their index and the instant: any number of them, without being kept."""

from __future__ import annotations

import math
from array import array
from typing import Any

WORKFLOWS = ("book_small", "book_medium", "book_large")
SERVERS = ("http://127.0.0.1:8188", "http://10.0.0.7:8188")
ERROR = "CUDA out of memory. Tried to allocate 2.50 GiB (GPU 0; 8.00 GiB total capacity; 5.11 GiB already allocated)"
WORDS = {
    "completed": ("done", "completed"),
    "cached": ("done", "from cache"),
    "failed": ("attention", "failed: out of memory"),
    "lost": ("attention", "lost"),
    "timeout": ("attention", "timed out"),
    "cancelled": ("ended", "cancelled"),
    "retrying": ("pending", "retrying 2/3 in {wait} s"),
    "running": ("rendering", "running"),
    "sent": ("rendering", "sent"),
    "queued": ("pending", "in the queue"),
    "waiting": ("pending", "waiting"),
}
BADGES = ("pending", "rendering", "attention", "done", "ended")
NAMES = ("latency", "flow", "queue", "gpu", "vram", "power")


def _hash(index: int) -> float:
    return math.modf(math.sin(index * 12.9898) * 43758.5453)[0] % 1.0


class Jobs:
    def __init__(self, *, count: int, every_s: float, load: str) -> None:
        self.count, self.every_s, self.load = count, every_s, load
        self._kept: tuple[float, dict[str, list[int]]] | None = None

    def latency(self, index: int) -> float:
        return 1.4 + 2.6 * _hash(index) ** 3 + 0.8 * math.sin(index / 40) ** 2 + (8 if index % 97 == 13 else 0)

    def fine(self, index: int, now_s: float) -> str:
        due = index * self.every_s
        chance = _hash(index * 7 + 1)
        if now_s < due + self.latency(index):
            if chance > 0.8:
                return "retrying"
            waited = now_s - due
            return "running" if waited > 0.9 else "sent" if waited > 0.6 else "queued" if waited > 0.3 else "waiting"
        for limit, fine in (
            (0.006, "failed"),
            (0.008, "lost"),
            (0.01, "timeout"),
            (0.012, "cancelled"),
            (0.1, "cached"),
        ):
            if chance < limit:
                return fine
        return "completed"

    def due(self, now_s: float) -> int:
        return min(self.count, int(now_s / self.every_s) + 1) if self.count else 0

    def sorted(self, now_s: float) -> dict[str, list[int]]:
        """The indexes of each finer state, the newest first."""
        if self._kept is None or self._kept[0] != round(now_s, 1):
            found: dict[str, list[int]] = {fine: [] for fine in WORDS}
            for index in range(self.due(now_s) - 1, -1, -1):
                found[self.fine(index, now_s)].append(index)
            self._kept = (round(now_s, 1), found)
        return self._kept[1]

    def matching(self, now_s: float, params: dict[str, Any]) -> list[int] | range:
        found = self.sorted(now_s)
        state = params.get("state", "")
        indexes: list[int] | range
        if state in BADGES:
            indexes = [i for fine, these in found.items() if WORDS[fine][0] == state for i in these]
            indexes.sort(reverse=True)
        elif state:
            indexes = found.get(state, [])
        else:
            indexes = range(self.due(now_s) - 1, -1, -1)
        if workflow := params.get("workflow"):
            indexes = [i for i in indexes if WORKFLOWS[i % 3] == workflow]
        if server := params.get("server"):
            indexes = [i for i in indexes if SERVERS[i % 2] == server]
        if kind := params.get("kind"):
            indexes = [i for i in indexes if kind == "oom" and self.fine(i, now_s) == "failed"]
        if text := params.get("text"):
            indexes = [i for i in indexes if text in f"job-{i}"]
        if params.get("order") == "slowest":
            indexes = sorted(indexes, key=self.latency, reverse=True)
        if params.get("order") == "due":
            indexes = indexes[::-1]
        return indexes

    def row(self, index: int, now_s: float) -> dict[str, Any]:
        fine = self.fine(index, now_s)
        badge, words = WORDS[fine]
        due, latency = index * self.every_s, self.latency(index)
        ended = due + latency if badge in ("done", "attention", "ended") else None
        wait = max(0.0, due + latency - now_s)
        return {
            "index": index,
            "id": f"job-{index}",
            "badge": badge,
            "fine": fine,
            "words": words.format(wait=round(wait)),
            "workflow": WORKFLOWS[index % 3],
            "due_s": due,
            "ended_s": ended,
            "latency": latency if ended else None,
            "attempt": 2 if fine == "retrying" else 1,
            "of": 3,
            "until_s": due + latency if fine == "retrying" else None,
            "why": ERROR if fine in ("failed", "retrying") else "",
            "server": SERVERS[index % 2],
            "book": None,
        }

    def rows(self, now_s: float, params: dict[str, Any]) -> dict[str, Any]:
        indexes = self.matching(now_s, params)
        offset, limit = int(params.get("offset", 0)), int(params.get("limit", 100))
        shown = [self.row(index, now_s) for index in indexes[offset : offset + limit]]
        return {"total": len(indexes), "offset": offset, "rows": shown}

    def counts(self, now_s: float) -> dict[str, int]:
        found = dict.fromkeys(BADGES, 0)
        for fine, indexes in self.sorted(now_s).items():
            found[WORDS[fine][0]] += len(indexes)
        return found

    def entry(self, run: str, now_s: float, *, running: bool) -> dict[str, Any]:
        counts = self.counts(now_s)
        return {
            "id": run,
            "name": run.split("/")[-1],
            "state": "running" if running else "complete",
            "running": running,
            "started_utc": "2026-11-27T16:00:00Z",
            "ended_utc": "" if running else "2026-11-27T16:40:00Z",
            "load": self.load,
            "server": SERVERS[0],
            "jobs": self.due(now_s),
            "attention": counts["attention"],
            "counts": counts,
            "label": "",
            "spark": [self.latency(n * 17) for n in range(24)] if self.count > 1 else [],
        }

    def run(self, run: str, now_s: float, params: dict[str, Any], *, running: bool) -> dict[str, Any]:
        found, counts = self.sorted(now_s), self.counts(now_s)
        chips = [
            {"group": "state", "key": fine, "label": fine, "count": len(found[fine]), "on": params.get("state") == fine}
            for fine in ("retrying", "failed", "lost", "timeout", "cached", "cancelled")
            if found[fine]
        ]
        for group, names in (("workflow", WORKFLOWS), ("server", SERVERS)):
            share = self.due(now_s) // len(names)
            chips += [
                {"group": group, "key": name, "label": name, "count": share, "on": params.get(group) == name}
                for name in names
                if share
            ]
        if found["failed"]:
            chips.append(
                {"group": "kind", "key": "oom", "label": "out of memory", "count": len(found["failed"]), "on": False}
            )
        done = counts["done"]
        tiles = [
            {"label": "images/min", "words": "69" if done else "–", "interval": "61 – 77" if done else "", "note": ""},
            {"label": "half of the jobs within", "words": "3.3 s" if done else "–", "interval": "", "note": ""},
            {"label": "p95", "words": "3.8 s" if done > 20 else "–", "interval": "", "note": "needs 20 jobs"},
            {"label": "succeeded", "words": f"{done} of {self.due(now_s)}", "interval": "", "note": ""},
        ]
        errors = [
            {"t_s": i * self.every_s, "index": i, "kind": "oom", "node": "KSampler", "text": ERROR, "count": 1 + i % 3}
            for i in found["failed"][:8]
        ]
        return {
            "id": run,
            "name": run.split("/")[-1],
            "state": "running" if running else "complete",
            "running": running,
            "now_s": round(now_s, 2),
            "as_of_s": round(now_s - 2, 0),
            "started_utc": "2026-11-27T16:00:00Z",
            "subtitle": ["book_small, book_medium, book_large", self.load, "2 servers"],
            "counts": counts,
            "chips": chips,
            "tiles": tiles if self.count else [],
            "gates": [
                {
                    "words": "success_rate >= 98 %",
                    "verdict": "PASS*",
                    "why": "149 jobs with none failed would prove it",
                },
                {"words": "p95_latency_s <= 45", "verdict": "PASS", "why": "all below 12 s"},
                {"words": "images_per_minute >= 80", "verdict": "FAIL", "why": "69/min, 14 % below"},
            ]
            if self.count
            else [],
            "remarks": [
                {"level": "warning", "text": "The first job took 25 % longer.", "hint": "warm up with --warmup 1"}
            ]
            if self.count
            else [],
            "nodes": [
                {
                    "node": "3",
                    "class": "KSampler",
                    "workflow": "book_small",
                    "runs": done,
                    "mean": "2.1 s",
                    "share": "62 %",
                    "part": 0.62,
                },
                {
                    "node": "9",
                    "class": "SaveImage",
                    "workflow": "book_small",
                    "runs": done,
                    "mean": "0.71 s",
                    "share": "21 %",
                    "part": 0.21,
                },
                {
                    "node": "8",
                    "class": "VAEDecode",
                    "workflow": "book_small",
                    "runs": done,
                    "mean": "0.34 s",
                    "share": "10 %",
                    "part": 0.1,
                },
                {
                    "node": "6",
                    "class": "CLIPTextEncode",
                    "workflow": "book_small",
                    "runs": done,
                    "mean": "0.05 s",
                    "share": "2 %",
                    "part": 0.02,
                },
            ]
            if done
            else [],
            "errors": errors,
            "charts": [{"name": name, "title": TITLES[name][0], "unit": TITLES[name][1]} for name in NAMES]
            if self.count
            else [],
            "states": [{"word": "VALID", "look": "good", "sentence": ""}],
            "problem": "",
            "damaged": 0,
            "needing": counts["attention"],
            "books": {"count": 0, "first": []},
            "book": None,
            "again": [],
            "again_of": None,
            "of_day": False,
            "actions": (["stop"] if running else []) + (["retry_all"] if counts["attention"] and not running else []),
        }

    def chart(self, now_s: float, params: dict[str, Any]) -> tuple[dict[str, Any], list[array[float]]]:
        name = params["chart"]
        start = float(params.get("from_s") or 0.0)
        end = float(params.get("to_s") or 0.0) or self.due(now_s) * self.every_s
        width = max(2, min(int(params.get("width", 400)), 2000))
        times = [start + (end - start) * n / (width - 1) for n in range(width)]
        names, columns = ["t"], [array("f", times)]
        for series, scale in SERIES[name].items():
            middle = [scale * self.latency(int(t / self.every_s)) for t in times]
            names += [f"{series} min", f"{series} max", f"{series} last"]
            columns += [array("f", [m * f for m in middle]) for f in (0.8, 1.3, 1.0)]
        return {"names": names, "n": width, "title": TITLES[name][0], "unit": TITLES[name][1]}, columns


TITLES = {
    "latency": ("Latency by phase", "s"),
    "flow": ("Arrivals and completions", "jobs/min"),
    "queue": ("Queue depth", "jobs"),
    "gpu": ("GPU busy", "%"),
    "vram": ("VRAM", "GiB"),
    "power": ("Power", "W"),
}
SERIES = {
    "latency": {"execution": 1.0, "queue": 0.4},
    "flow": {"arrivals": 20.0, "completions": 19.0},
    "queue": {"waiting": 1.2},
    "gpu": {"GPU 0": 20.0},
    "vram": {"GPU 0": 2.0},
    "power": {"GPU 0": 50.0},
}


def job_of(jobs: Jobs, now_s: float, index: int) -> dict[str, Any] | None:
    if not 0 <= index < jobs.due(now_s):
        return None
    row = jobs.row(index, now_s)
    latency, failed = jobs.latency(index), row["fine"] in ("failed", "retrying")
    nodes = [("4", "CheckpointLoaderSimple", 0.0), ("6", "CLIPTextEncode", 0.03), ("3", "KSampler", 0.62)]
    nodes += [] if failed else [("8", "VAEDecode", 0.1), ("9", "SaveImage", 0.2)]
    spans: list[dict[str, Any]] = []
    at = row["due_s"] + 0.25 * latency
    for node, name, share in nodes:
        cached, taken = share == 0.0, share * 0.75 * latency
        times = {"begin_s": None if cached else at, "end_s": None if cached else at + taken}
        spans.append({"node": node, "class": name, "cached": cached, **times})
        at += taken
    outcome = "failed" if failed else {"attention": "lost", "done": "completed"}.get(row["badge"])
    first = {
        "attempt": 1,
        "id": f"{index:08x}-0000-4000-8000-000000000000",
        "server": row["server"],
        "outcome": outcome,
        "words": outcome or "under way",
        "sent_s": row["due_s"] + 0.01,
        "ended_s": row["ended_s"],
        "executed_s": 0.75 * latency if outcome == "completed" else None,
        "waited_s": 0.0,
        "kind": "oom" if failed else None,
        "type": "OutOfMemoryError" if failed else "",
        "error": row["why"],
        "node": "3" if failed else None,
        "node_class": "KSampler" if failed else None,
        "rule": "out of memory: tried again after 14 s, at most 3 times" if failed else "",
        "of": 3 if failed else None,
        "wait_s": 14.0 if failed else None,
        "until_s": row["until_s"],
    }
    attempts = [first]
    if row["fine"] == "retrying":
        attempts.append(
            {**first, "attempt": 2, "outcome": None, "words": "under way", "error": "", "rule": "", "id": ""}
        )
    return {
        **row,
        "now_s": round(now_s, 2),
        "started_s": row["due_s"] + 0.25 * latency,
        "values": {"3.seed": 4213377 + index},
        "durations": [
            {"key": "latency", "words": "latency", "seconds": row["latency"]},
            {"key": "execution", "words": "execution", "seconds": 0.75 * latency},
        ],
        "failure": {"kind": "oom", "node": "3"} if failed else None,
        "attempts": attempts,
        "nodes": spans if row["ended_s"] is not None else [],
        "outputs": [{"node": "9", "file": "output/page_00001_.png", "kind": "image"}] if row["badge"] == "done" else [],
        "message": row["why"],
    }
