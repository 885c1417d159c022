"""Meanings that no table of the code has: types, nested keys and exit codes."""

from __future__ import annotations

TYPES = {
    "Count": "int ≥ 0",
    "Number": "int ≥ 0",
    "Instant": "instant",
    "Seconds": "seconds ≥ 0",
    "Rate": "per second ≥ 0",
    "Value": "a number from -1e18 to 1e18",
    "Milliseconds": "ms",
}
"""What the bounded types of `record/bounds.py` are to a reader; `run-directory.md` says what an instant is."""

STATISTICS: dict[str, str] = {
    "quantile_method": "the definition of every percentile here: `hf8`, Hyndman & Fan's eighth",
    "observed": "percentiles and maxima of the completed jobs by nearest rank; null if there are too few jobs",
    "other_methods": "the p95 by other tools' definitions, in seconds; null without jobs",
    "nodes": "one object per node that ran; the highest total time first",
    "node_clock_s": "possible error of the times in `nodes`, which are arrival times of messages",
    "failures": "one object per cause of failure; the most frequent first",
    "cache": "by cache class (`fresh`, `partial`, `cached`): `jobs`, `avg_latency_s`, `p50_latency_s`",
    "outputs": "by what a node reported (`images`, `text`, …): one object of counts",
    "made": "new files by kind (`image`, `video`, `audio`, `3d`, `latent`, `text`, `other`) and by the server's folder "
    "(`output`, `temp`); texts without a file are `shown`",
    "images_by_type": "`made.image`: new images by folder",
    "fetched": "totals of the downloads of `--fetch`; null without the flag",
    "telemetry": "by `source.name`: one object per series of `samples.ndjson`",
    "gpus": "by the server's index of the GPU, for GPUs with readings",
    "saturation": "how busy server and GPUs were, that is, whether more jobs in flight would help",
    "servers": "one object per server by its name, of a run over several; empty for one",
    "server_clock": "rate of the server's clock against the generator's, from the ends of jobs; null with too few jobs",
    "retries": "what retries gained and cost, and the first attempts on their own; null without `--policy`",
    "left_on_server": "jobs given up, by their state on the server afterwards",
    "warmup": "warm-up jobs by outcome",
    "books": "books by outcome; null if an arrival is one job",
    "after": "mean execution time by the workflow that ran before",
}
JOB: dict[str, tuple[str, str]] = {
    "index": ("", "place in the plan, from 0, warm-up first"),
    "prompt_id": ("", "the job's id on the server"),
    "workflow": ("", "name of the workflow"),
    "server": ("", "name of the server that ran it, in a run over several; else null"),
    "book": ("", "number of its book, from 0; null if an arrival is one job"),
    "warmup": ("", "whether it is a warm-up job, which no number counts"),
    "censored": ("", "cut off by the end of the run: it took longer than the time observed"),
    "cached": ("", "`cache` is not `fresh`"),
    "cache": ("", "`fresh`, `partial` or `cached`"),
    "due_s": ("s", "when it was due, from the start of the run"),
    "sent_s": ("s", "when its POST was sent; null if it never was"),
    "done_s": ("s", "when its end became known; null if it never did"),
    "seen_by": ("", "source of the end: `events`, `history`, or `client` if the client gave it up"),
    "done_within_s": ("s", "the end happened at most this long before `done_s`; 0 for an event"),
    "images": ("images", "new images saved, as in `.summary.images`; 0 if it did not complete"),
    "previews": ("images", "new images in any other folder; 0 if it did not complete"),
    "made": ("", "everything it made, as in `.statistics.made`"),
    "files": ("", "every file it returned, as `type/subfolder/name`, cached ones included"),
    "failure": ("", "why it did not succeed, or null: `Failure` in [run-directory.md](run-directory.md)"),
    "left_on_server": ("", "its state on the server after it was given up, or null"),
    "values": ("", "the value of each `node.input` that varies"),
}
EXIT_CODES: dict[int, str] = {
    0: "The run is valid, even if `--max-jobs` or `--max-time` ended it. Failed jobs do not change the code: read "
    "`success_rate`.",
    1: "A gate is disproven, or an unexpected error occurred. `baseline verify`: a file or a number differs from what "
    "was saved.",
    2: "Nothing was sent, or the result could not be written; the message says what to fix. The server would refuse "
    "the workflow (also `doctor`), or others use the server. A comparison is refused. A baseline of that name exists.",
    3: "`doctor`: the server cannot be measured now. `cleanup`: jobs of the run are still on the server. "
    "A gate is INCONCLUSIVE or, with `--strict`, PASS*.",
    4: "No ComfyUI answers at the address. Nothing was written.",
    5: "There is a finding of level `invalid`, or no job completed, or a cap ended `saturate`, `ab` or `checklist` "
    "before its result. The run directory and `--output` are written. "
    "`show` and `resume` end with the code of the run.",
    70: "An error in comfyload. The message names a file with the traceback and without secrets (in the run directory, "
    "if there is one): please report it. Measurements are kept, and jobs of the run are removed from the server.",
    130: "Stopped by Ctrl-C or SIGTERM. The run directory and `--output` are written, with the jobs that ended.",
}
