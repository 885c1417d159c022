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
ANSWERS: dict[str, Any] = {"archive": {"baselines": [], "folder": "infra/observability/baselines"}}


def servers() -> dict[str, Any]:
    return {"servers": []}
