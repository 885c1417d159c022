"""What no table of the code has yet: the meaning of types, of nested keys and of exit codes."""

from __future__ import annotations

TYPES = {
    "Count": "int ≥ 0",
    "Number": "int ≥ 0",
    "Instant": "instant",
    "Seconds": "seconds ≥ 0",
    "Rate": "per second ≥ 0",
    "Milliseconds": "ms",
}
"""What the bounded types of `record/bounds.py` are to a reader; `run-directory.md` says what an instant is."""

STATISTICS: dict[str, str] = {
    "quantile_method": "the definition of every percentile here: `hf8`, Hyndman & Fan's eighth",
    "observed": "percentiles and maxima of the completed jobs by nearest rank; a percentile is null of too few",
    "other_methods": "the p95 as tools with other definitions would print it, in seconds; null of no jobs",
    "nodes": "one object per node that ran, the costliest in all first",
    "node_clock_s": "how far the times in `nodes` may be off: they are arrivals of messages",
    "failures": "one object per cause of failure, the most frequent first",
    "cache": "by cache class (`fresh`, `partial`, `cached`): `jobs`, `avg_latency_s`, `p50_latency_s`",
    "outputs": "by what a node reported (`images`, `text`, …): one object of counts",
    "made": "new files by kind (`image`, `video`, `audio`, `3d`, `latent`, `text`, `other`) and by the folder of the "
    "server they are in: `output`, `temp`; texts that are in no file are `shown`",
    "images_by_type": "`made.image`: new images by folder",
    "fetched": "sums over the downloads of `--fetch`; null without them",
    "telemetry": "by `source.name`: one object per series of `samples.ndjson`",
    "gpus": "by the server's index of the GPU, where there are readings of it",
    "saturation": "how busy server and GPUs were: would more in flight help?",
    "server_clock": "how fast the server's clock ran against ours, by the ends of its jobs; null where too few tell it",
    "retries": "what retries saved and cost, and the first attempts alone; null without `--policy`",
    "left_on_server": "jobs we gave up, by what had become of them on the server",
    "warmup": "warm-up jobs by outcome",
    "books": "books by how they ended; null where an arrival is one job",
    "after": "mean execution by what the server had run before",
}
JOB: dict[str, tuple[str, str]] = {
    "index": ("", "place in the plan, from 0, warm-up first"),
    "prompt_id": ("", "the job's id on the server"),
    "workflow": ("", "name of the workflow"),
    "book": ("", "number of the book it is a page of, from 0; null where an arrival is one job"),
    "warmup": ("", "whether it is left out of every number"),
    "censored": ("", "the end of the run cut it off: it took longer than it was observed for"),
    "cached": ("", "`cache` is not `fresh`"),
    "cache": ("", "`fresh`, `partial` or `cached`"),
    "due_s": ("s", "when it was due, from the start of the run"),
    "sent_s": ("s", "when its POST left; null if none did"),
    "done_s": ("s", "when its end was seen; null if none was"),
    "seen_by": ("", "where the end was learnt: `events`, `history`, or `client` where we gave it up ourselves"),
    "done_within_s": ("s", "the end happened at most this long before `done_s`; 0 for an event"),
    "images": ("images", "new images that were saved, as in `.summary.images`; 0 if it did not complete"),
    "previews": ("images", "new images in any other folder; 0 if it did not complete"),
    "made": ("", "all that it made, as in `.statistics.made`"),
    "files": ("", "every file it returned, as `type/subfolder/name`, cached ones included"),
    "failure": ("", "why it is no success, or null: see `Failure` in [run-directory.md](run-directory.md)"),
    "left_on_server": ("", "what had become of it there after we gave it up, or null"),
    "values": ("", "`node.input` to the value this job got"),
}
EXIT_CODES: dict[int, str] = {
    0: "The run is valid, also if `--max-jobs` or `--max-time` cut it. Failed jobs do not change that: read "
    "`success_rate`.",
    1: "A gate is disproven, or an error came that was not expected. `baseline verify`: a file or a number is not as "
    "it was saved.",
    2: "Nothing was sent, or the result could not be written: the message says what to mend. The server would refuse "
    "the workflow (also `doctor`), or others use it. A comparison is refused. A baseline of that name is there.",
    3: "`doctor`: the server is in no state to be measured. `cleanup`: something of the run is still on the server. "
    "A gate is INCONCLUSIVE, or with `--strict` PASS*.",
    4: "No ComfyUI answers at the address. Nothing was written.",
    5: "A finding of level `invalid` was made, or no job completed; `saturate`, `ab` or `checklist` was cut by a cap "
    "before it could tell. The run directory and `--output` are written. "
    "`show` and `resume` end with the code that the run has.",
    70: "comfyload made a mistake. The line names a file with the traceback, in the run directory if there is one, "
    "without what is secret: please report it. What was measured is kept, and jobs of the run are off the server.",
    130: "Stopped by Ctrl-C or SIGTERM. The run directory and `--output` are written, with the jobs that ended.",
}
