"""Whether others used the server of a run in shards. No shard alone knows: what another sends looks foreign to it."""

from collections.abc import Iterator

import numpy as np

from comfyload.judge.estimates import Evidence
from comfyload.judge.findings.table import Finding, finding

ENDED_S, APART_S = 1.0, 0.1
"""A job may be in the server's queue for so long after its end, while its history is written; and so far may the clocks
of two shards be apart.
"""


def foreign_findings(evidence: Evidence) -> Iterator[Finding]:
    """Of all readings of the queue the one that is longest above what all shards together had under way.

    Jobs that did not complete, or have no end, may be in the queue until the end. Where a job was sent several times, a
    shard is missing, or the run was resumed, it is not known what was ours.
    """
    manifest, jobs, fold = evidence.manifest, evidence.jobs.every, evidence.fold
    is_known = not manifest.resumed and manifest.retry is None and manifest.part.is_whole
    if not isinstance(manifest.shards, int) or not is_known or not len(fold.queue_lengths):
        return
    if any(one.code in ("lost_shard", "foreign_load") for one in manifest.observations):
        return
    at, length = np.array(fold.queue_at), np.array(fold.queue_lengths)
    sent, done = jobs.instants["sent"], jobs.instants["done"][jobs.completed]
    begun = np.searchsorted(np.sort(sent[~np.isnan(sent)]), at + APART_S, side="right")
    over = np.searchsorted(np.sort(done[~np.isnan(done)]), at - ENDED_S - APART_S, side="left")
    ours = begun - over + len(fold.ledger.unfinished)
    worst = int(np.argmax(length - ours))
    if length[worst] <= ours[worst]:
        return
    yield finding(
        "foreign_load",
        f"The server's queue held {length[worst]:.0f} prompts, of which at most {ours[worst]} were of this run's "
        "shards: other clients' work is in these numbers.",
        {"count": int(np.count_nonzero(length > ours)), "first_t": float(at[worst]), "queue": float(length[worst])},
    )
