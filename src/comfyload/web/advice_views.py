"""What the other process computes of advice: service times, the surfaces under the sliders, saturation, policies."""

from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
from msgspec import to_builtins

from comfyload import clock
from comfyload.advise.choose_policy import OURS, synthesise
from comfyload.advise.queueing import Dispatch
from comfyload.advise.surface import surface
from comfyload.app.advice import SEED, Basis, ahead, basis_of
from comfyload.app.saturate import saturated
from comfyload.judge.summary import jsonable
from comfyload.load.grammar import duration_text
from comfyload.record.policy import FailureClass, Policy
from comfyload.record.run import RunReader
from comfyload.report.advice import capacity_page, policy_page, policy_sentence, rule_words, trouble_words
from comfyload.report.charts.advice import saturation_chart
from comfyload.report.page import as_json as page_json
from comfyload.report.saturation import saturation_json, saturation_page
from comfyload.retry.policy import rule_of
from comfyload.web.file_state import FileState, Side
from comfyload.web.kept_views import target
from comfyload.web.worker import Answer, as_json

PACKED = "application/msgpack"


def basis_answer(base: str, side: Side, shares: tuple[str, ...], state: FileState) -> Answer:
    """What advice rests on, for the sliders' ends and for the reader."""
    on = _basis(base, side, shares, state)
    weights = on.workload.shares
    return as_json(
        {
            "jobs": on.pools.n,
            "capacity_per_minute": 60 * on.jobs_per_s,
            "workflows": [
                {"name": name, "share": share / sum(weights)}
                for name, share in zip(on.pools.workflows, weights, strict=True)
            ],
            "doubts": on.doubts,
        }
    )


def surface_answer(
    base: str, side: Side, shares: tuple[str, ...], servers: int, dispatch: Dispatch, state: FileState
) -> Answer:
    """What to expect of so many servers at any rate; packed, since it has infinite numbers."""
    on = _basis(base, side, shares, state)
    found = surface(on.pools, on.workload, servers, dispatch, np.random.default_rng(SEED))
    return Answer(kind=PACKED, body=msgspec.msgpack.encode(found))


def capacity_answer(
    base: str,
    side: Side,
    shares: tuple[str, ...],
    rate_per_s: float | None,
    limit_s: float,
    servers: int | None,
    dispatch: Dispatch,
    state: FileState,
) -> Answer:
    """The Page of `comfyload capacity`."""
    on = _basis(base, side, shares, state)
    found = ahead(on, rate_per_s=rate_per_s, limit_s=limit_s, servers=servers, dispatch=dispatch)
    return as_json({"page": page_json(capacity_page(found, on.pools.workflows, []))})


def saturation_answer(paths: tuple[str, ...], limit_s: float, _state: FileState) -> Answer:
    """The Page of `comfyload saturate`, of the runs that it made."""
    found = clock.run(saturated([RunReader(Path(path)) for path in paths], limit_s))
    document = saturation_json(found)
    chart = saturation_chart(found)
    return as_json(
        {
            "page": page_json(saturation_page(found, [])),
            "chart": {"name": chart.name, "title": chart.title, "description": chart.description,
                      "withheld": chart.withheld},
            "limit_s": limit_s,
            **{key: document[key] for key in ("knee", "deploy_per_minute", "confirmed", "capacity_per_minute",
                                              "sla_rate_per_minute", "curve", "steps")},
        }
    )  # fmt: skip


def policy_answer(
    base: str,
    side: Side,
    shares: tuple[str, ...],
    deadline_s: float,
    goal: float,
    rate_per_s: float | None,
    servers: int,
    blind: bool,
    state: FileState,
) -> Answer:
    """The retry policy that `comfyload policy` makes, and how it does in trouble, compared with the naive ones."""
    on = _basis(base, side, shares, state)
    made = synthesise(
        on.pools,
        on.workload,
        deadline_s=deadline_s,
        target=goal,
        rate_per_s=0.6 * servers * on.jobs_per_s if rate_per_s is None else rate_per_s,
        servers=servers,
        transient=on.transient,
        depth_known=not blind,
        rng=np.random.default_rng(SEED),
    )
    return as_json(
        {
            "words": policy_sentence(made),
            "deadline": duration_text(deadline_s),
            "page": page_json(policy_page(made, "", on.doubts, [])),
            "rules": _rules(made),
            "scenarios": _scenarios(made),
            "policy": to_builtins(made),
        }
    )


def _rules(policy: Policy) -> list[dict[str, Any]]:
    """What is done about each class of failures, in words; what is sent again comes first."""
    found = [(name, rule_of(policy, name)) for name in get_args(FailureClass)]
    return [
        {"class": name, "retry": rule.retry, "words": rule_words(policy, rule), "why": rule.why}
        for name, rule in sorted(found, key=lambda one: not one[1].retry)
    ]


def _scenarios(policy: Policy) -> list[dict[str, Any]]:
    """A row for each policy in each trouble; None: not known, and of `recovery_s`: never, or there was no trouble."""
    return [
        {
            "scenario": name,
            "words": trouble_words(name),
            "rows": [
                jsonable(row) | {"ours": row.policy == OURS} for row in policy.scores if row.scenario == name
            ],
        }
        for name in dict.fromkeys(row.scenario for row in policy.scores)
    ]  # fmt: skip


@lru_cache(maxsize=8)
def _basis(base: str, side: Side, shares: tuple[str, ...], _state: FileState) -> Basis:
    found = target(base, side)
    return basis_of(found, found.name, shares)
