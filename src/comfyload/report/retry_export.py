"""A retry policy for other tools, a template each; each file lists what that tool cannot do."""

from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from comfyload.record.policy import Policy

FORMATS = ("tenacity", "stamina", "envoy", "nginx", "env")
_RUNS_TWICE = (
    "A reply that did not come says nothing: look the prompt id up in /queue and /history before it is sent again.\n"
    "# ComfyUI runs an id that is sent twice, twice."
)
_GONE_LACKS = "the depth of the queue, the budget over all jobs, and taking a late job off the server"


def retry_export(policy: Policy, to: str) -> str:
    """The text of a file, ending in a line break; `to` is one of `FORMATS`."""
    templates = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    templates.filters |= {"short": _short, "whole": lambda seconds: max(1, round(seconds))}
    text = (files("comfyload.report") / "templates" / f"retry_{to}.jinja").read_text(encoding="utf-8")
    return templates.from_string(text).render(
        policy=policy,
        deadline="none" if policy.deadline_s is None else f"{_short(policy.deadline_s)} s",
        full_jitter=policy.backoff.jitter == "full",
        gone_lacks=_GONE_LACKS,
        runs_twice=_RUNS_TWICE,
    )


def _short(number: float | None) -> str:
    return "None" if number is None else f"{number:g}"
