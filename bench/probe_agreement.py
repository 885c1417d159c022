"""Node times measured by the probe in the server, compared with those that `comfyload run` takes from messages.

A message is late by what the server's loop, the network and the client are busy with, so the two differ; the probe's
are the exact ones. Usage: `python bench/probe_agreement.py RUN_DIR LOG`, LOG being comfyui_metrics.ndjson, or the
run's own log.ndjson.
"""

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from comfyload.record.model import Record
from comfyload.record.run import RunReader

ALLOWED_S, ALLOWED_SHARE = 0.005, 0.02

Times = dict[tuple[str, str], float]
"""Seconds by prompt id and node id."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one side knows of the prompts: outcomes and cached nodes by prompt id."""

    times: Times
    outcomes: dict[str, str]
    cached: dict[str, set[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("log", type=Path, nargs="+", help="rows of the probe; several files are read one after another")
    parser.add_argument("--allow-share", type=float, default=0.0, help="exit 0 with up to this share beyond the bound")
    options = parser.parse_args()
    outside, inside = by_messages(options.run_dir), by_probe(options.log)
    common = sorted(outside.times.keys() & inside.times.keys())
    missing = sorted(outside.outcomes.keys() - inside.outcomes.keys())
    other = [one for one in outside.outcomes if inside.outcomes.get(one) not in (None, outside.outcomes[one])]
    uncached = sum(len(nodes - inside.cached.get(one, set())) for one, nodes in outside.cached.items())
    prompts = len(outside.outcomes)
    print(f"prompts  {prompts} in the run, {len(missing)} missing in the log, {len(other)} of another outcome")
    print(f"cached   {sum(map(len, outside.cached.values()))} nodes in the run, {uncached} not cached in the log")
    alone = len(outside.times) - len(common)
    print(f"nodes    {len(outside.times)} timed in the run, {alone} of them not in the log")
    beyond = say_differences(outside.times, inside.times, common) if common else len(outside.times)
    sys.exit(1 if missing or other or uncached or beyond > options.allow_share * len(common) else 0)


def say_differences(outside: Times, inside: Times, common: list[tuple[str, str]]) -> int:
    """Print how far the two are apart; how many nodes are beyond the bound."""
    exact = np.array([inside[key] for key in common])
    apart = np.array([outside[key] for key in common]) - exact
    size = np.abs(apart)
    beyond = int(np.sum(size > np.maximum(ALLOWED_S, ALLOWED_SHARE * exact)))
    p50, p99 = np.quantile(size, [0.5, 0.99])
    print(f"apart    n {len(common)}, p50 {1e3 * p50:.3f} ms, p99 {1e3 * p99:.3f} ms, max {1e3 * size.max():.3f} ms")
    print(f"         median of (run - log) {1e3 * np.median(apart):+.3f} ms, mean {1e3 * apart.mean():+.3f} ms")
    say_means(outside, inside, common)
    print(f"beyond   {beyond} of {len(common)} are more than max(5 ms, 2 %) apart")
    return beyond


def say_means(outside: Times, inside: Times, common: list[tuple[str, str]]) -> None:
    """Print each node's mean by both: what is late once is early the next time."""
    for node in sorted({node for _, node in common}):
        pairs = np.array([(outside[key], inside[key]) for key in common if key[1] == node])
        seen, exact = pairs.mean(axis=0)
        share = (seen - exact) / exact if exact else 0.0
        within = abs(seen - exact) <= max(ALLOWED_S, ALLOWED_SHARE * exact)
        print(
            f"mean     node {node}: run {1e3 * seen:.2f} ms, log {1e3 * exact:.2f} ms, {100 * share:+.2f} %, "
            f"n {len(pairs)}: {'within' if within else 'BEYOND'} the bound"
        )


def by_messages(run_dir: Path) -> Seen:
    """What the run's records say."""
    words = {"completed": "ok", "failed": "error", "cancelled": "interrupted"}
    seen = Seen(times={}, outcomes={}, cached={})
    for line in RunReader(run_dir).lines():
        if not isinstance(line, Record) or not line.execution.executions:
            continue
        execution = line.execution
        stopped = execution.failure is not None and execution.failure.kind == "interrupted"
        seen.outcomes[line.prompt_id] = "interrupted" if stopped else words.get(execution.outcome, execution.outcome)
        seen.cached[line.prompt_id] = set(execution.cached)
        for node, start, end in ((span.node, span.start, span.end) for span in execution.nodes):
            if end is not None:
                seen.times[line.prompt_id, node] = end - start
    return seen


def by_probe(logs: list[Path]) -> Seen:
    """What the probe's rows say."""
    seen = Seen(times={}, outcomes={}, cached=defaultdict(set))
    for log in logs:
        for line in log.read_bytes().splitlines():
            row = json.loads(line)
            row = row.get("row", row)
            if row.get("event") == "prompt.ended":
                seen.outcomes[row["prompt_id"]] = row["status"]
            elif row.get("event") == "node" and row["status"] == "cached":
                seen.cached[row["prompt_id"]].add(row["node"])
            elif row.get("event") == "node" and row["duration_ms"] is not None:
                seen.times[row["prompt_id"], row["node"]] = 1e-3 * row["duration_ms"]
    return seen


if __name__ == "__main__":
    main()
