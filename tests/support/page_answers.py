"""Made-up answers of the dashboard's plain addresses."""

from typing import Any

PAGE: dict[str, Any] = {
    "title": "book_medium",
    "subtitle": ["12 jobs, 4 in flight", "http://127.0.0.1:8490"],
    "states": [
        {"word": "VALID", "look": "good", "sentence": "These numbers can be trusted."},
        {"word": "FAIL", "look": "bad", "sentence": "1 of 2 gates failed."},
    ],
    "tiles": [
        {"label": "images/min", "value": {"words": "69", "interval": "61 – 77"}},
        {"label": "half of the jobs within", "value": {"words": "3.3 s", "interval": "1.3 – 3.8"}},
        {"label": "p95", "value": {"words": "–", "note": "needs 20 jobs"}},
        {"label": "succeeded", "value": {"words": "12 of 12", "look": "good"}},
    ],
    "short": ["12 of 12 completed · none from the cache · server 99.9 % busy: more only waits"],
    "bars": [
        {
            "key": "time",
            "title": "where the time goes",
            "parts": True,
            "bars": [
                {"label": "queue", "share": 0.75, "words": "2.4 s"},
                {"label": "execution", "share": 0.25, "words": "0.8 s"},
            ],
        }
    ],
    "charts": [
        {"name": "latency", "title": "Latency by phase", "description": "Latency grows to 3.8 s."},
        {"name": "gpu", "title": "GPU", "withheld": "No GPU was read."},
    ],
    "facts": [
        {"label": "Took", "value": {"words": "10.5 s"}},
        {"label": "Server", "value": {"words": "ComfyUI 0.33.0"}},
    ],
    "tables": [
        {
            "key": "nodes",
            "title": "Nodes",
            "columns": [{"title": "node"}, {"title": "mean", "right": True}, {"title": "why", "prose": True}],
            "rows": [
                [
                    {"words": "SaveImage"},
                    {"words": "0.42 s", "interval": "0.3 – 0.5"},
                    {"words": "A faster disk helps."},
                ],
                [{"words": "KSampler"}, {"words": "0.21 s", "note": "from 3 jobs"}, {"words": ""}],
                [{"words": "VAEDecode"}, {"words": "0.10 s"}, {"words": "▇▇▇▇▇▇"}],
            ],
        },
        {
            "key": "details",
            "title": "Details",
            "detail": True,
            "columns": [{"title": "number"}, {"title": "value", "right": True}],
            "rows": [[{"words": "Jobs"}, {"words": "12"}]],
        },
    ],
    "remarks": [
        {
            "level": "warning",
            "text": "The first job took 25 % longer.",
            "hint": "warm up with --warmup 1",
            "code": "warmup",
        },
        {"level": "info", "text": "Jobs queue behind each other.", "detail": True},
    ],
    "notes": ["One run a side."],
    "places": [["all numbers", "comfyload show --all"]],
    "next": ["comfyload compare a b"],
}
FIELDS = [
    {"name": "concurrency", "flag": "--concurrency", "group": "Run", "kind": "number", "words": "Jobs in flight."},
    {
        "name": "rate",
        "flag": "--rate",
        "group": "Load",
        "kind": "rate",
        "words": "Send at this rate.",
        "example": "12/min",
    },
    {
        "name": "on_full",
        "flag": "--on-full",
        "group": "Load",
        "kind": "choice",
        "words": "When full.",
        "choices": ["wait", "drop"],
    },
    {"name": "policy", "flag": "--policy", "group": "Load", "kind": "file", "words": "Send failed jobs again."},
    {"name": "gate", "flag": "--gate", "group": "Gates", "kind": "texts", "words": "A rule. Repeatable."},
    {"name": "until_proven", "flag": "--until-proven", "group": "Gates", "kind": "switch", "words": "Until decided."},
]
BARE = {"default": "", "unit": "", "example": "", "choices": [], "least": None, "most": None, "whole": True}
HEAD = {"name": "0", "title": "p50 execution", "description": "3 points, from 1.0 s to 1.1 s.", "withheld": ""}
ANSWERS: dict[str, Any] = {
    "compare": {"page": PAGE, "rows": []},
    "environment": {"page": PAGE, "differs": 0},
    "trend": {"page": {**PAGE, "tiles": []}, "series": [1], "charts": [HEAD], "left_out": []},
    "start": {
        "fields": [{**BARE, **field} for field in FIELDS],
        "servers": [{"name": "gpu", "url": "http://127.0.0.1:8188"}, {"name": "other", "url": "http://127.0.0.1:8189"}],
        "gates": ["success_rate >= 98 %", "p95_latency_s <= 45"],
    },
    "plans": {"folder": "plans", "plans": [{"name": "nightly", "saved_utc": "", "problem": "", "words": "12 jobs"}]},
    "archive": {
        "folder": "infra/observability/baselines",
        "promoted": "2026-11-27-gpu",
        "problem": "",
        "baselines": [
            {
                "name": f"2026-11-{day}-gpu",
                "state": "kept",
                "saved_utc": f"2026-11-{day}T16:00:00Z",
                "promoted": day == 27,
                "words": "9 runs: book_small",
                "runs": [],
                "notes": {},
            }
            for day in (27, 20)
        ],
    },
    "advice/basis": {
        "jobs": 120,
        "capacity_per_minute": 30.0,
        "workflows": [{"name": "book_small", "share": 1.0}],
        "doubts": ["Measured on a simulator."],
        "most_servers": 16,
        "limit_s": 45.0,
    },
    "advice/capacity": {
        "rate_per_minute": 21.0,
        "stable": True,
        "keeps": True,
        "may_keep": True,
        "values": {"rate": {"words": "21"}, "p95": {"words": "12.0", "interval": "9–14"}, "late": {"words": "2 %"}},
        "columns": ["per min", "p95, s", ">45 s"],
        "curve": {
            "rate_per_minute": [float(n) for n in range(1, 30)],
            "p95_s": [200 / (31 - n) for n in range(1, 30)],
            "low_s": [180 / (31 - n) for n in range(1, 30)],
            "high_s": [220 / (31 - n) for n in range(1, 30)],
            "p50_s": [80 / (31 - n) for n in range(1, 30)],
        },
        "sizing": "One server keeps the p95 within 45 s.",
        "simulated": 8,
        "to_simulate": 8,
    },
}


def servers() -> dict[str, Any]:
    memory = {"total": 24e9, "free": 6e9, "words": "5.6 GiB of 22.4 GiB free"}
    up = {
        "name": "gpu",
        "url": "http://127.0.0.1:8188",
        "kind": "comfyui",
        "state": "up",
        "why": "",
        "hint": "",
        "version": "0.33.0",
        "answers_in": "3.8 ms",
        "queue": 3,
        "cache": "ram",
        "devices": [{"name": "RTX 5060 Ti", "type": "cuda", "memory": memory}],
        "memory": memory,
        "probe": "there",
        "models": [{"name": "sd_xl_base_1.0.safetensors", "bytes": 6e9, "words": "6.5 GiB"}],
    }
    down = {
        **up,
        "name": "other",
        "kind": "unknown",
        "state": "down",
        "why": "connection refused",
        "hint": "is it running?",
    }
    members = [
        {"name": "a", "url": "http://10.0.0.1:8188", "state": "drained", "drained": True, "jobs": 2, "running": 1}
    ]
    gateway = {**up, "name": "gateway", "kind": "gateway", "members": members, "differ": {"ComfyUI": {"a": "0.33.0"}}}
    return {"servers": [up, down, gateway], "gateway": None}


def gateway_jobs(state: str = "") -> dict[str, Any]:
    """Jobs of a gateway: each kind of them, and more that have ended than are listed."""

    def job(number: int, state: str, **more: Any) -> dict[str, Any]:
        attempt = {
            "server": "gpu1",
            "outcome": "failed",
            "kind": "execution_error",
            "error": "CUDA out of <b>memory</b>",
        }
        found = {
            "id": f"{number:08d}-0000-4000-8000-000000000000",
            "state": state,
            "tenant": "shop",
            "client_id": "page",
            "workflow": f"KSampler-{number:08x}",
            "created_ms": 1_795_900_000_000 + number,
            "server": "gpu1",
            "attention": False,
            "attempts": [attempt] * more.pop("failed", 0),
        }
        return found | more

    def listed(jobs: list[dict[str, Any]], total: int | None = None) -> dict[str, Any]:
        return {"jobs": jobs, "total": len(jobs) if total is None else total, "offset": 0}

    ended = [
        *(job(10 + n, "completed", started_ms=1_795_900_001_000, ended_ms=1_795_900_003_000) for n in range(3)),
        job(20, "cancelled", ended_ms=1_795_900_003_000),
        job(21, "failed", failed=1, error="it broke", ended_ms=1_795_900_003_000),
    ]
    wanted = [
        one for one in ended if state not in ("done", "ended") or (one["state"] == "completed") == (state == "done")
    ]
    return {
        "attention": listed([job(n, "failed", failed=3, attention=True, error="CUDA out of memory") for n in range(2)]),
        "unended": listed(
            [
                job(5, "pending"),
                job(6, "in_progress", started_ms=1_795_900_001_000),
                job(7, "pending", failed=1, next_attempt_at=4_000_000_000_000),
            ]
        ),
        "ended": listed(wanted, 10_000),
        "counts": {"pending": 2, "rendering": 1, "attention": 2, "done": 9_000, "ended": 1_000},
        "kept": 10_000,
    }
