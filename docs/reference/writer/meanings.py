"""What the code does not say of itself: the meaning of each key and code."""

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

SUMMARY: dict[str, tuple[str, str]] = {
    "valid": ("bool", "no finding of level `invalid`: the numbers measure what they are named after"),
    "total_jobs": ("jobs", "counted jobs offered; the sum of the six outcomes below. Warm-up is not in it"),
    "completed": ("jobs", "ended well by the server's history, and with `--fetch` every output was whole"),
    "failed": ("jobs", "refused, raised in a node, interrupted by somebody else, or an output could not be fetched"),
    "timeouts": ("jobs", "not done within `--timeout`; cancelled on the server"),
    "cancelled": ("jobs", "stopped by us: a second Ctrl-C, SIGTERM, or the end of a run that does not drain"),
    "lost": ("jobs", "accepted once, and unknown to the server afterwards"),
    "dropped": ("jobs", "due but never sent: no place was free, or the run was stopped while they waited for one"),
    "censored": ("jobs", "of `cancelled`: cut off by the end of the run, with `--no-drain`; no failures"),
    "unfinished": ("jobs", "sent, and without a record of their end: the generator was killed before"),
    "warmup_jobs": ("jobs", "run before counting began; in no other number"),
    "cached": ("jobs", "completed, with an output or a sampler taken from the server's cache: the sum of the next two"),
    "cached_fully": ("jobs", "completed, with every output from the cache: the job made nothing"),
    "cached_partly": ("jobs", "completed, with some output or sampler from the cache, but not every output"),
    "images": (
        "images",
        "image files in the server's `output` folder that counted, completed jobs made themselves: not cached, not "
        "returned by an earlier job, each once in its job. Pictures that move count as videos",
    ),
    "previews": ("images", "the same of images in any other folder, mostly `temp`"),
    "videos": ("files", "new videos and animations, of any folder: `.statistics.made` has them by folder"),
    "audio_files": ("files", "new audio files, of any folder"),
    "files_3d": ("files", "new 3D files, of any folder, those that a node reports as a bare path included"),
    "latents": ("files", "new latents, of any folder"),
    "texts": ("texts", "new texts, in files or only shown"),
    "other_files": ("files", "new files of any other sort"),
    "image_bytes": ("bytes", "size of the images downloaded with `--fetch`; null without it"),
    "wall_clock_s": ("s", "from when the first counted job was due until the last one's end was seen"),
    "offered_per_minute": ("arrivals/min", "arrivals (jobs, or books) that were due, from the first due to the last"),
    "sent_per_minute": ("arrivals/min", "arrivals that were sent, from the first sent to the last"),
    "completed_per_minute": ("arrivals/min", "arrivals that completed, over `wall_clock_s`"),
    "books": ("books", "counted books offered; null where an arrival is one job"),
    "books_completed": ("books", "of which every page completed"),
    "success_rate": ("0..1", "`completed` over `total_jobs` less `censored`"),
    "images_per_minute": (
        "images/min",
        "`images` over `wall_clock_s`; `previews`, where no job put any file into `output` and none reported an empty "
        "list: `.statistics.images_per_minute.unit` says which",
    ),
    "jobs_per_minute": ("jobs/min", "`completed` over `wall_clock_s`"),
    "book_success_rate": ("0..1", "`books_completed` over `books` less those that the end of the run cut off"),
    "books_per_hour": ("books/h", "`books_completed` over `wall_clock_s`"),
    "observed_p99_latency_s": (
        "s",
        "the p99 of the completed jobs by nearest rank: what happened, and no estimate. Null of fewer than 299, where "
        "it would be the maximum, or nearly",
    ),
}
DURATIONS: dict[str, str] = {
    "latency": "from when the job was due until its end was seen, on the client's clock",
    "latency_sent": "from when the job was sent until its end was seen, on the client's clock",
    "latency_with_failures": "`latency`, every job that did not complete counted as infinitely long",
    "queue_wait": "from queued to started, on the server's clock",
    "execution": "from started to ended, on the server's clock",
    "book_latency": "from when a book was due until the end of its last page was seen, on the client's clock",
    "acknowledge": "from sending the job until the reply that it is queued was read, on the client's clock",
}
PREFIXES = {
    "avg": "mean",
    "p50": "median",
    "p90": "90th percentile",
    "p95": "95th percentile",
    "p99": "99th percentile",
    "max": "maximum",
}
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
    "saturation": "how busy server and GPUs were, each said on its own: would more in flight help?",
    "server_clock": "how fast the server's clock ran against ours, by the ends of its jobs; null where too few tell it",
    "retries": "what retries saved and cost, first attempts beside; null without `--policy`",
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
    "outcome": ("", "`completed`, `failed`, `timed_out`, `cancelled`, `lost` or `dropped`"),
    "censored": ("", "the end of the run cut it off: it took longer than what was seen of it"),
    "cached": ("", "`cache` is not `fresh`"),
    "cache": ("", "`fresh`, `partial` or `cached`"),
    "due_s": ("s", "when it was due, from the start of the run"),
    "sent_s": ("s", "when its POST left; null if none did"),
    "done_s": ("s", "when its end was seen; null if none was"),
    "seen_by": ("", "who told of the end: `events`, `history`, or `client` where we gave it up ourselves"),
    "done_within_s": ("s", "the end happened at most this long before `done_s`; 0 when told by an event"),
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
LEVELS: dict[str, str] = {
    "damaged_lines": "invalid for records; warning for samples and the log",
    "clock_rate": "warning; invalid above 2 %, unless a server on another machine counts as our monotonic clock does",
    "server_clock_rate": "warning; invalid above 2 %",
    "cached_jobs": "invalid; warning with `--as-is`",
    "repeated_files": "invalid; warning with `--as-is`, or if the files were written over",
    "generator_late": "invalid; warning if only the tail is touched",
    "polled_ends": "info; warning above 1 % of the median",
    "dependent_jobs": "info; warning with one job in flight",
}
"""Of findings whose level depends on what was found."""
