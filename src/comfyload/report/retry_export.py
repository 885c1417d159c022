"""A retry policy for other tools; each file lists what that tool cannot do."""

from __future__ import annotations

from typing import Literal, get_args

from comfyload.retry.policy import Policy

Format = Literal["tenacity", "stamina", "envoy", "nginx", "env"]
_RUNS_TWICE = (
    "A reply that did not come says nothing: look the prompt id up in /queue and /history before it is sent again.\n"
    "ComfyUI runs an id that is sent twice, twice."
)
_GONE_LACKS = "the depth of the queue, the budget over all jobs, and taking a late job off the server"


def formats() -> tuple[Format, ...]:
    """Every format."""
    return get_args(Format)


def retry_export(policy: Policy, to: Format) -> str:
    """The text of a file, ending in a line break."""
    return {"tenacity": _tenacity, "stamina": _stamina, "envoy": _envoy, "nginx": _nginx, "env": _env}[to](policy)


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in text.split("\n"))


def _tenacity(policy: Policy) -> str:
    stops = [f"stop_after_attempt({policy.attempts})"]
    if policy.deadline_s is not None:
        stops.insert(0, f"stop_after_delay({policy.deadline_s:g})")
    low, cap = f"{policy.backoff.base_s:g}", f"{policy.backoff.cap_s:g}"
    wait = (
        f"wait_random_exponential(multiplier={low}, max={cap})"
        if policy.backoff.jitter == "full"
        else f"wait_exponential(multiplier={low}, max={cap})"
    )
    names = sorted({text.split("(")[0] for text in (*stops, wait)})
    return (
        _comment(
            f"Not expressible here: {_GONE_LACKS}.\n"
            "stop_after_delay is looked at between attempts only: it ends no attempt that is under way.\n"
            "No attempt may have a timeout of its own: it would leave the job on the server and send another.\n"
            + _RUNS_TWICE
        )
        + f"from tenacity import retry, retry_if_exception, {', '.join(names)}\n\n\n"
        "def may_pass(error: BaseException) -> bool:\n"
        '    """Never for a refused graph, nor for a node that would raise the same again."""\n'
        "    return isinstance(error, (ConnectionError, JobLost, TransientExecutionError))  # your own classes\n\n\n"
        "@retry(\n"
        f"    stop={' | '.join(stops)},\n"
        f"    wait={wait},\n"
        "    retry=retry_if_exception(may_pass),\n"
        "    reraise=True,\n"
        ")\n"
        "def run_prompt(prompt): ...\n"
    )


def _stamina(policy: Policy) -> str:
    jitter = f"{policy.backoff.base_s:g}" if policy.backoff.jitter == "full" else "0"
    timeout = "None" if policy.deadline_s is None else f"{policy.deadline_s:g}"
    return (
        _comment(
            f"Not expressible here: {_GONE_LACKS}; full jitter (stamina adds up to wait_jitter to a growing pause).\n"
            "timeout is looked at between attempts only: it ends no attempt that is under way. The default of 45 s\n"
            "ends before one slow job does.\n" + _RUNS_TWICE
        )
        + "import stamina\n\n\n"
        "@stamina.retry(\n"
        "    on=(ConnectionError, JobLost, TransientExecutionError),  # your own classes\n"
        f"    attempts={policy.attempts},\n"
        f"    timeout={timeout},\n"
        f"    wait_initial={policy.backoff.base_s:g},\n"
        f"    wait_max={policy.backoff.cap_s:g},\n"
        f"    wait_jitter={jitter},\n"
        ")\n"
        "def run_prompt(prompt): ...\n"
    )


def _envoy(policy: Policy) -> str:
    breaker, connect = policy.breaker, policy.connect_s
    return (
        _comment(
            "Only the HTTP request is retried: Envoy does not know that a prompt which was accepted fails later.\n"
            f"Not expressible here: the deadline of a job ({_or_none(policy.deadline_s, ' s')}), its attempts, the\n"
            "depth of ComfyUI's queue, taking a job off the server.\n"
            "retry_on has connect-failure alone: after any other error the prompt may be queued already. Its budget\n"
            "(20 %, at least 3 at once) is left out: at some jobs a minute its floor lets every retry pass."
        )
        + "routes:\n"
        '  - match: { path: "/prompt" }\n'
        "    route:\n"
        "      cluster: comfyui\n"
        "      hash_policy: [{ connection_properties: { source_ip: true } }]\n"
        f"      timeout: {policy.submit_s:g}s  # of the POST, not of the job\n"
        "      retry_policy:\n"
        "        retry_on: connect-failure\n"
        "        num_retries: 2\n"
        "        retry_back_off:\n"
        f"          base_interval: {policy.backoff.base_s:g}s\n"
        f"          max_interval: {max(policy.backoff.base_s, policy.backoff.cap_s):g}s\n"
        "        retry_host_predicate:\n"
        "          - name: envoy.retry_host_predicates.previous_hosts\n"
        "            typed_config:\n"
        '              "@type": type.googleapis.com/'
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate\n"
        "        host_selection_retry_max_attempts: 5\n"
        '  - match: { prefix: "/" }\n'
        "    route:\n"
        "      cluster: comfyui\n"
        "      hash_policy: [{ connection_properties: { source_ip: true } }]\n"
        "      timeout: 0s  # a video takes long to download\n"
        "      upgrade_configs: [{ upgrade_type: websocket }]\n"
        "---\n"
        "cluster:\n"
        "  name: comfyui\n"
        "  lb_policy: MAGLEV  # results, files and the WebSocket of a prompt are on the server that runs it\n"
        f"  connect_timeout: {connect:g}s\n"
        "  outlier_detection:\n"
        f"    consecutive_local_origin_failure: {breaker.failures}\n"
        "    split_external_local_origin_errors: true\n"
        f"    base_ejection_time: {breaker.open_s:g}s\n"
        f"    max_ejection_time: {breaker.open_max_s:g}s\n"
        "    max_ejection_percent: 100\n"
    )


def _nginx(policy: Policy) -> str:
    return (
        _comment(
            "Only the HTTP request is retried: nginx does not know that a prompt which was accepted fails later.\n"
            f"Not expressible here: the deadline of a job ({_or_none(policy.deadline_s, ' s')}), its attempts, the\n"
            "depth of ComfyUI's queue, a pause between tries, jitter, a budget, taking a job off the server.\n"
            "proxy_next_upstream error would try the next server also after a POST was sent, but nginx does not do so\n"
            "for a POST unless non_idempotent is set. Do not set it: the prompt may be queued already."
        )
        + "upstream comfyui {\n"
        "    ip_hash;  # results, files and the WebSocket of a prompt are on the server that runs it\n"
        f"    server 10.0.0.1:8188 max_fails={policy.breaker.failures} fail_timeout={_whole(policy.breaker.open_s)}s;\n"
        "}\n"
        "location / {\n"
        "    proxy_pass http://comfyui;\n"
        f"    proxy_connect_timeout {_whole(policy.connect_s)}s;\n"
        f"    proxy_read_timeout {_whole(policy.submit_s)}s;  # of each read\n"
        "    proxy_next_upstream error timeout;\n"
        "    proxy_next_upstream_tries 2;\n"
        "    client_max_body_size 100m;  # what ComfyUI takes; nginx takes 1m\n"
        "}\n"
        "location /ws {\n"
        "    proxy_pass http://comfyui;\n"
        "    proxy_http_version 1.1;\n"
        "    proxy_set_header Upgrade $http_upgrade;\n"
        '    proxy_set_header Connection "upgrade";\n'
        "    proxy_read_timeout 1h;  # it may be silent for long\n"
        "}\n"
    )


def _env(policy: Policy) -> str:
    backoff, budget, breaker = policy.backoff, policy.budget, policy.breaker
    rows: list[tuple[str, float | int | None, str]] = [
        ("COMFY_DEADLINE_SEC", policy.deadline_s, "from when a job is wanted, over all its attempts"),
        ("COMFY_MAX_RETRIES", policy.attempts - 1, "after the first attempt; only of what may pass"),
        ("COMFY_RETRY_BACKOFF_SEC", backoff.base_s, "doubled with each failure; draw from 0 to it"),
        ("COMFY_RETRY_BACKOFF_MAX_SEC", backoff.cap_s, ""),
        ("COMFY_CONNECT_TIMEOUT_SEC", policy.connect_s, ""),
        ("COMFY_SUBMIT_TIMEOUT_SEC", policy.submit_s, "of the POST, not of the job"),
        ("COMFY_LIVENESS_SEC", policy.liveness_s, "without progress of a job that runs"),
        ("COMFY_MAX_QUEUE_DEPTH", policy.admission.depth, "prompts before ours, running or waiting"),
        ("COMFY_RETRY_BUDGET_RATIO", budget.ratio, "retries that each job earns"),
        ("COMFY_RETRY_BUDGET_CAP", budget.cap, "retries that may be saved up"),
        ("COMFY_BREAKER_FAILURES", breaker.failures, "in a row"),
        ("COMFY_BREAKER_OPEN_SEC", breaker.open_s, ""),
        ("COMFY_BREAKER_OPEN_MAX_SEC", breaker.open_max_s, ""),
        ("COMFY_CANCEL_ON_DEADLINE", int(policy.cancel), ""),
    ]
    head = "Not expressible here: which failures may pass, and that an id is looked up before it is sent again."
    lines = [_comment(head)]
    for name, value, words in rows:
        if words:
            lines.append(_comment(words))
        lines.append(f"# {name}=  (no limit)\n" if value is None else f"{name}={value:g}\n")
    return "".join(lines)


def _or_none(value: float | None, unit: str) -> str:
    return "none" if value is None else f"{value:g}{unit}"


def _whole(seconds: float) -> int:
    return max(1, round(seconds))
