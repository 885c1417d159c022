"""Recordings as schedules: what is an arrival, when it was, and what is refused before anything is made."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from comfyload.app.run.given import options_of
from comfyload.app.run.options import read_plan, to_toml
from comfyload.app.run.repeat import command
from comfyload.errors import UsageError
from comfyload.load.recorded import read_recording
from comfyload.record.options import RunOptions
from comfyload.record.plan import Replay


def clf(second: int, request: str, status: int = 200, day: str = "27/Nov/2026", zone: str = "+0000") -> str:
    return f'10.0.0.5 - - [{day}:10:00:{second:02} {zone}] "{request}" {status} 95 "-" "python-requests/2.32"'


def offsets(lines: list[str], match: str | None = None) -> list[float]:
    return [round(offset, 6) for offset in read_recording(lines, "f", match=match).offsets_s]


def refusal(lines: list[str], match: str | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        read_recording(lines, "f", match=match)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return str(caught.value)


POLLS = ["GET /history/2f1c", "GET /view?filename=a.png", "GET /ws", "GET /queue", "GET /prompt", "OPTIONS /prompt"]


def test_numbers_are_seconds_and_counted_from_the_first() -> None:
    assert offsets(["# mine", "3.5", "", "4", "6.5"]) == [0, 0.5, 3]
    assert read_recording(["0", "4"], "f", speedup=4).offsets_s == [0, 1]
    assert read_recording(["0", "4"], "f").read_as == "2 lines, each an arrival; numbers taken as seconds"


def test_a_runs_records_are_its_jobs_as_they_were_due() -> None:
    records = [
        '{"line":"sent","due":0.1,"index":0}',
        '{"line":"record","due":0.1,"warmup":true}',
        '{"line":"record","due":5.0,"warmup":false,"workflow":"GET /history","t":9}',
        '{"line":"record","due":2.0,"warmup":false}',
    ]
    assert offsets(records) == [0, 3]
    assert "2 jobs of a run" in read_recording(records, "f").read_as


def test_polls_are_no_arrivals() -> None:
    lines = [
        clf(0, "POST /prompt HTTP/1.1"),
        *(clf(3, f"{poll} HTTP/1.1") for poll in POLLS),
        clf(10, "POST /prompt HTTP/1.1"),
    ]
    assert offsets(lines) == [0, 10]
    said = read_recording(lines, "f").read_as
    assert said.startswith("2 requests POST …/prompt; 6 other requests passed over (1 GET /history/…,")


@pytest.mark.parametrize(
    "request_line",
    [
        "POST /prompt HTTP/1.0",
        "POST /prompt HTTP/2.0",
        "POST /prompt?token=x HTTP/1.1",
        "POST /api/prompt HTTP/1.1",
        "POST /comfy/gpu1/api/prompt HTTP/1.1",
        "POST //prompt HTTP/1.1",
        "POST /prompt/ HTTP/1.1",
        "POST http://10.0.0.1:8188/prompt HTTP/1.1",
        "POST /prompt",
    ],
)
def test_a_job_is_posted_to_prompt_wherever_that_is(request_line: str) -> None:
    assert offsets([clf(0, request_line), clf(1, "GET /prompt HTTP/1.1"), clf(2, request_line)]) == [0, 2]


@pytest.mark.parametrize(
    "other", ["POST /prompts HTTP/1.1", "POST /myprompt HTTP/1.1", "POST /prompt/x HTTP/1.1", "\\x16\\x03"]
)
def test_what_only_looks_like_it_is_none(other: str) -> None:
    assert offsets([clf(0, "POST /prompt HTTP/1.1"), clf(5, other)]) == [0]


def test_a_log_without_jobs_is_refused_with_what_it_has() -> None:
    said = refusal(
        [clf(0, "GET /history/2f1c HTTP/1.1")] * 8 + [clf(1, "POST /v1/generate HTTP/1.1"), clf(2, "-", 408)]
    )
    assert said == (
        "f has 10 requests, and none is POST …/prompt (8 GET /history/…, 1 POST /v1/generate, 1 unreadable) "
        "(name those that start a job, such as --replay-match 'POST /v1/generate', or a text in their lines)"
    )


def test_other_endpoints_are_chosen_by_method_and_path() -> None:
    lines = [
        clf(0, "POST /v1/images/7/generate HTTP/1.1"),
        clf(1, "GET /v1/images/7/generate HTTP/1.1"),
        clf(4, "POST /v1/images/8/generate?x HTTP/1.1"),
        clf(5, "POST /prompt HTTP/1.1"),
    ]
    assert offsets(lines, "POST /generate") == [0, 4]
    assert offsets(lines, "post /v1/images/*/generate") == [0, 4]
    assert offsets(lines, "/generate") == [0, 1, 4]
    assert offsets(lines, "* /generate") == [0, 1, 4]
    assert offsets([clf(0, "GET /a/ HTTP/1.1"), clf(1, "GET / HTTP/1.1"), clf(3, "GET / HTTP/1.1")], "GET /") == [0, 2]
    assert "none is POST …/render" in refusal(lines, "POST /render")
    assert "holds no requests" in refusal(["1", "2"], "POST /render")
    assert "--replay-match is empty" in refusal(lines, " ")


def test_a_job_that_was_refused_was_asked_for_but_one_that_came_again_counts_once() -> None:
    post = "POST /prompt HTTP/1.1"
    lines = [clf(0, post, 401), clf(0, post, 200), clf(3, post, 400), clf(6, post, 307), clf(6, post, 502)]
    assert offsets(lines) == [0, 3, 6]
    said = read_recording(lines, "f").read_as
    assert "2 of them answered with 400 or above, which count as well" in said
    assert "2 passed over that were redirected or refused without credentials" in said
    assert offsets([clf(0, post, 401), clf(2, post, 401)]) == [0, 2]


def test_comfyuis_own_log_has_a_line_for_each_job() -> None:
    lines = [
        "[2026-11-27 10:00:00.100] Starting server",
        "[2026-11-27 10:00:01.500] got prompt",
        "Traceback (most recent call last):",
        "[2026-11-27 10:00:02.000] Prompt executed in 0.50 seconds",
        "[2026-11-27 10:00:04.750] got prompt",
    ]
    assert offsets(lines) == [0, 3.25]
    assert read_recording(lines, "f").read_as == "2 lines with 'got prompt'; 3 other lines passed over"
    assert offsets(lines, "executed in") == [0]
    assert "no line with 'job taken' in it" in refusal(lines, "job taken")
    assert "line 2 has no time that can be read: got prompt" in refusal([lines[0], "got prompt"])


def test_requests_go_before_what_comfyui_says_of_them() -> None:
    lines = ["2026-11-27T10:00:01Z comfy: got prompt", clf(0, "POST /prompt HTTP/1.1")]
    assert offsets(lines) == [0]


LINES = (Path(__file__).parents[1] / "data" / "log_lines.txt").read_text(encoding="utf-8").splitlines()[1:]
FORMATS = dict(line.split(" :: ", 1) for line in LINES) | {
    "cloudfront without a header": "2026-11-27\t10:00:0~\tCDG50\t7\t1.2.3.4\tPOST\tx.net\t/prompt\t200",
    "colours": "\x1b[32m2026-11-27 10:00:0~\x1b[0m POST /prompt",
}
"""A request in the log of each server, with ~ in the place of the second."""

PAIRS = {
    "squid": (
        "1795773600.150    150 10.0.0.5 TCP_MISS/200 95 POST http://gpu:8188/prompt - DIRECT/10.0.0.9 application/json",
        "1795773603.900    900 10.0.0.5 TCP_MISS/200 95 POST http://gpu:8188/prompt - DIRECT/10.0.0.9 application/json",
    ),
    "nginx json": (
        '{"request":"POST /prompt HTTP/1.1","time_local":"27/Nov/2026:10:00:00 +0000"}',
        '{"request":"POST /prompt HTTP/1.1","time_iso8601":"2026-11-27T10:00:03+00:00"}',
    ),
    "nginx json, msec at the request's end": (
        '{"msec":"1795773600.500","request_time":"0.500","request_method":"POST","request_uri":"/prompt","status":"200"}',
        '{"msec":"1795773605.000","request_time":"2.000","request_method":"POST","uri":"/prompt","status":"200"}',
    ),
    "caddy": (
        '{"ts":1795773600.5,"logger":"http.log.access.log0","request":{"method":"POST","uri":"/prompt"},"duration":0.5}',
        '{"ts":1795773603.1,"logger":"http.log.access.log0","request":{"method":"POST","uri":"/prompt"},"duration":0.1}',
    ),
    "elastic": (
        '{"@timestamp":"2026-11-27T10:00:00.000Z","http":{"request":{"method":"POST"}},"url":{"path":"/prompt"}}',
        '{"@timestamp":"2026-11-27T10:00:03.000Z","http.request.method":"POST","url.path":"/prompt"}',
    ),
    **{name: (line.replace("~", "0"), line.replace("~", "3")) for name, line in FORMATS.items()},
}


@pytest.mark.parametrize("name", PAIRS)
def test_servers_write_requests_in_many_ways(name: str) -> None:
    first, last = PAIRS[name]
    poll = first.replace("POST", "GET").replace("prompt", "history/77aa")
    lines = [first, poll, poll, last]
    assert offsets(lines) == [0, 3]
    assert "2 other requests passed over" in read_recording(lines, "f").read_as


def test_iis_names_its_columns() -> None:
    lines = [
        "#Software: Microsoft Internet Information Services 10.0",
        "#Fields: date time s-ip cs-method cs-uri-stem cs-uri-query s-port sc-status time-taken",
        "2026-11-27 10:00:00 10.0.0.1 POST /prompt - 80 200 15",
        "2026-11-27 10:00:01 10.0.0.1 GET /history/1 - 80 200 15",
        "#Fields: sc-status cs-uri-stem cs-method time date",
        "200 /prompt POST 10:00:07 2026-11-27",
    ]
    assert offsets(lines) == [0, 7]


def test_zeek_and_quoted_columns() -> None:
    zeek = ["#separator \\x09", "#fields\tts\tuid\tmethod\turi\tuser_agent"]
    zeek += [
        f"179577360{n}.5\tC1\t{method}\t/prompt\ta browser" for n, method in ((0, "POST"), (2, "GET"), (5, "POST"))
    ]
    assert offsets(zeek) == [0, 5]
    quoted = ["#Fields: date time cs(User-Agent) cs-method cs-uri"]
    quoted += [f'"2026-11-27" "10:00:0{n}" "a browser" "POST" "http://x/prompt?y"' for n in (0, 5)]
    assert offsets(quoted) == [0, 5]


def test_local_dates_in_columns_of_their_own() -> None:
    lines = ["#Fields:   date-local time-local   s-ip   cs-method cs-uri-stem"]
    lines += [f"2026-11-27 10:00:0{n}.250 1.2.3.4 POST /prompt" for n in (1, 4)]
    assert offsets(lines) == [0, 3]


def test_requests_whose_path_is_not_found_are_no_arrivals() -> None:
    lines = ["2026-11-27T10:00:00Z handled GET of history", "2026-11-27T10:00:05Z handled POST of prompt"]
    assert "2 requests, and none is POST …/prompt (1 GET, 1 POST)" in refusal(lines)
    assert offsets(lines, "POST of prompt") == [0]
    assert "none is POST" in refusal(['{"ts": 1795773600, "method": "POST", "what": "prompt"}'])


def test_a_request_without_its_method_is_one_all_the_same() -> None:
    lines = [f'{{"date": "2026-11-27T10:00:0{n}Z", "path": "/prompt", "status": "200"}}' for n in (0, 5)]
    assert "2 requests, and none is POST …/prompt (2 /prompt)" in refusal(lines)
    assert offsets(lines, "/prompt") == [0, 5]


def test_a_table_names_its_columns() -> None:
    assert offsets(["timestamp", "0", "5"]) == [0, 5]
    assert offsets(["\ufefftimestamp;user", '"1,5";a', "3;b"]) == [0, 1.5]
    assert offsets(["sep=;", "user;offset_s", "a;1", "b;1,25"]) == [0, 0.25]
    assert offsets(
        ["ts,method,path", "1795773600,POST,/prompt", "1795773601,GET,/queue", "1795773604,POST,/prompt"]
    ) == [0, 4]
    k6 = ["metric_name,timestamp,metric_value,method,url"]
    k6 += [
        f"{name},17957736{n:02},1,POST,http://g/prompt" for n in (0, 4) for name in ("http_reqs", "http_req_duration")
    ]
    assert offsets(k6) == [0, 4]


def test_a_table_of_requests_without_methods_is_not_taken_for_jobs() -> None:
    lines = ["timeStamp,elapsed,label,responseCode,URL"]
    lines += [f"179577360{n}000,15,a,200,http://g/{path}" for n, path in ((0, "prompt"), (2, "view"), (5, "prompt"))]
    assert "3 requests, and none is POST …/prompt (2 /prompt, 1 /view)" in refusal(lines)
    assert offsets(lines, "/prompt") == [0, 5]


def test_k6_without_requests_has_iterations() -> None:
    point = '{{"metric":"{}","type":"{}","data":{{"time":"2026-11-27T10:00:0{}Z","value":1,"tags":{{}}}}}}'
    lines = [point.format("vus", "Point", 0), point.format("iterations", "Metric", 0)]
    lines += [
        point.format("iterations", "Point", 1),
        point.format("vus", "Point", 2),
        point.format("iterations", "Point", 5),
    ]
    assert offsets(lines) == [0, 4]


@pytest.mark.parametrize(
    ("first", "last", "apart"),
    [
        ("1710237600", "1710237601", 1),
        ("1710237600123", "1710237601123", 1),
        ("1710237600123456", "1710237601123456", 1),
        ("1710237600123456789", "1710237601123456789", 1),
        ('{"ts": 1710237600123}', '{"ts": "1710237601.123"}', 1),
        ("2026-11-27T10:00:00Z a", "2026-11-27T11:00:00+01:00 b", 0),
        ("2026-11-27T10:00:00Z", "2026-11-27 05:00:01.5-0500", 1.5),
        ("2026-11-27T10:00:00 UTC", "2026-11-27 11:00:01 CET x", 1),
        ("20261127T100000Z", "20261127T100002.5Z", 2.5),
        ("[Tue Mar 12 10:00:00.123456 2024] [core:notice] x", "[Tue Mar 12 10:00:04.123456 2024] y", 4),
        ("2024/03/12 10:00:00 [error] 12#0: x", "2024/03/12 10:00:04 [error] 12#0: x", 4),
        ("[2024-03-12 10:00:00,123] a", "[2024-03-12 10:00:01,623] b", 1.5),
        ("2024-06-30T23:59:60Z job", "2024-07-01T00:00:02Z job", 2),
        ("Tue, 12 Mar 2024 10:00:00 GMT", "Tue, 12 Mar 2024 10:00:01 GMT", 1),
        ("12.03.2024 10:00:00", "12.03.2024 10:00:01", 1),
        ("12-Mar-2024 10:00:00.250 INFO", "12-Mar-2024 10:00:01.500 INFO", 1.25),
        ("Dec 31 23:59:59 host python[7]: x", "Jan  1 00:00:01 host python[7]: y", 2),
        ("2024-03-12 10:00:00,200,a", "2024-03-12 10:00:01,200,b", 1),
        ("1710237600.250 start", "1710237601.500 start", 1.25),
        ("1e3", "1.5e3", 500),
        ("2026-11-27 11:59:59 AM", "2026-11-27 12:00:01 PM", 2),
        ("2026-11-27 12:59:59 am", "2026-11-27 1:00:00 am", 1),
        ("Mar 12, 2024 @ 10:00:00.123", "Mar 12, 2024 @ 10:00:01.123", 1),
    ],
)
def test_times_are_told_by_their_size_and_form(first: str, last: str, apart: float) -> None:
    assert offsets([last, first][:: 1 if apart else -1]) == pytest.approx([0, apart], abs=1e-6)


@pytest.mark.parametrize(
    "months",
    [
        "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec",
        "Jan Feb Mär Apr Mai Jun Jul Aug Sep Okt Nov Dez",
        "Jan. Febr. März Apr. Mai Juni Juli Aug. Sept. Okt. Nov. Dez.",
        "janv. févr. mars avril mai juin juil. août sept. oct. nov. déc.",
        "ene feb mar abr may jun jul ago sep oct nov dic",
        "gen feb mar apr mag giu lug ago set ott nov dic",
        "jan fev mar abr mai jun jul ago set out nov dez",
        "jan feb mrt apr mei jun jul aug sep okt nov dec",
        "januari februari maart april mei juni juli augustus september oktober november december",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    ],
)
def test_months_of_other_languages(months: str) -> None:
    lines = [clf(0, "POST /prompt HTTP/1.1", day=f"15/{month}/2023") for month in months.split()]
    lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30]
    assert offsets(lines) == [86400.0 * sum(lengths[:n]) for n in range(12)]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "holds no arrivals"),
        (["# nothing", ""], "holds no arrivals"),
        (["1", "soon"], "line 2 has no time that can be read: soon"),
        (['{"a": 1}'], "line 1 has no time that can be read"),
        (["true"], "line 1 has no time"),
        (["{", '  "due": 1', "}"], "JSON over several lines"),
        (["NaN", "1"], "line 1: invalid time 'NaN'"),
        (["0", "1e400"], "line 2: 1e400 is too large for a time"),
        (["0", "-inf"], "line 2: invalid time '-inf'"),
        (["-5", "0"], "line 1: -5 is negative"),
        (['{"ts": -1}'], "line 1: -1 is negative"),
        (['{"ts": NaN}'], "line 1: invalid time 'nan'"),
        (['{"ts": 1e999}'], "line 1: invalid time 'inf'"),
        (["9" * 400], "too large for a time"),
        (["0,5", "1,5"], "line 1: 0,5 may be a decimal comma or several columns"),
        (["0;1,5"], "line 1: 0;1,5 may be a decimal comma or several columns"),
        (["0 5", "1 5"], "line 1: 0 5 may be a decimal comma or several columns"),
        (["0", "1795773600"], "line 1 has a number of seconds, and line 2 a Unix time or a date with its zone"),
        (["2026-11-27T10:00:00Z", "2026-11-27T10:00:00"], "line 2 a date without a zone"),
        (["2026-02-31T10:00:00Z"], "line 1: invalid date and time '2026-02-31T10:00:00Z'"),
        (
            [clf(0, "POST /prompt HTTP/1.1", day="31/Feb/2026")],
            "line 1: invalid date and time '31/Feb/2026:10:00:00 +0000'",
        ),
        ([clf(0, "POST /prompt HTTP/1.1", day="12/Foo/2026")], "line 1: unknown month 'Foo'"),
        ([clf(0, "POST /prompt HTTP/1.1", zone="+9999")], "invalid date and time"),
        (["2026-11-27T25:00:00Z"], "invalid date and time"),
        (["2026-11-27T10:00:61Z"], "invalid date and time"),
        (["03/12/2024 10:00:00"], "day and month in an unknown order"),
        (["[03/12/2024:10:00:00 +0000] job"], "day and month in an unknown order"),
        (["2026-11-27 13:00:00 PM"], "invalid date and time"),
        (["[2024-05-31 15:12] got prompt"], "line 1: 2024-05-31 15:12 has no seconds"),
        (
            ["#Fields: time cs-method cs-uri-stem", "16:44:49 POST /prompt"],
            "16:44:49 is a time of day without its date",
        ),
        (["0," * 5000 + "x"], "line 1 has no time that can be read"),
        (["0," * 5000 + "0"], "may be a decimal comma or several columns"),
        (["10:00:00 job"], "line 1: 10:00:00 is a time of day without its date"),
        (["Feb 28 10:00:00 x", "Mar 1 10:00:00 x"], "on both sides of 29 February"),
        (['INFO:     127.0.0.1:5 - "POST /prompt HTTP/1.1" 200 OK'], "line 1 has no time that can be read"),
    ],
)
def test_what_cannot_be_told_is_refused_with_its_line(lines: list[str], reason: str) -> None:
    assert reason in refusal(lines)


def test_a_line_of_another_kind_does_not_stop_a_log() -> None:
    lines = [clf(0, "POST /prompt HTTP/1.1"), "logrotate was here", clf(2, "GET / HTTP/1.1", day="31/Feb/2026")]
    assert offsets(lines) == [0]
    assert "1 line without a request passed over" in read_recording(lines, "f").read_as


def test_whole_seconds_make_bursts_and_that_is_said() -> None:
    lines = [clf(second, "POST /prompt HTTP/1.1") for second in (1, 1, 1, 2)]
    assert offsets(lines) == [0, 0, 0, 1]
    assert "the times are whole seconds, so that 2 come at once with one before" in read_recording(lines, "f").read_as


def test_a_json_list_is_a_recording() -> None:
    assert offsets(["[0, 0.5,", " 2]"]) == [0, 0.5, 2]
    assert offsets(['[{"offset_s": 1}, {"offset_s": 4}]']) == [0, 3]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_options_read_a_file_or_a_run_and_the_run_can_be_repeated(tmp_path: Path, end: str) -> None:
    (tmp_path / "a.log").write_bytes(end.join(clf(n, "POST /generate HTTP/1.1") for n in (1, 4)).encode())
    flags: dict[str, Any] = {
        "server": "127.0.0.1:1",
        "replay": str(tmp_path / "a.log"),
        "replay_match": "POST /generate",
    }
    flags |= {"speedup": 2.0}
    options = options_of(flags, RunOptions())
    assert isinstance(options.plan.load, Replay)
    assert options.plan.load.offsets_s == [0, 1.5]
    assert options.plan.load.read_as == "2 requests POST …/generate"
    words = command(options)
    assert words[words.index("--replay-match") + 1] == "POST /generate"
    (tmp_path / "plan.toml").write_text(to_toml(options), encoding="utf-8")
    assert read_plan(tmp_path / "plan.toml") == options
    (tmp_path / "records.ndjson").write_text(
        '{"line":"record","due":7.5}\n{"line":"record","due":8}\n', encoding="utf-8"
    )
    load = options_of({**flags, "replay": str(tmp_path), "replay_match": None}, RunOptions()).plan.load
    assert isinstance(load, Replay)
    assert load.offsets_s == [0, 0.25]
    with pytest.raises(UsageError, match=r"--replay-match needs --replay"):
        options_of({**flags, "replay": None, "speedup": None}, RunOptions())
    with pytest.raises(UsageError, match=r"cannot read .*none.log"):
        options_of({**flags, "replay": str(tmp_path / "none.log")}, RunOptions())


@pytest.mark.parametrize(
    "line", ['POST /prompt{} HTTP/1.1" 200', "POST{}/prompt", "POST /prompt{}x", "method=POST{} path=/x"]
)
def test_a_line_of_a_hundred_thousand_spaces_is_read_at_once(line: str) -> None:
    began = time.process_time()
    with suppress(UsageError):
        read_recording([clf(1, line.format(" " * 100_000)), line.format(" " * 100_000)], "f")
    assert time.process_time() - began < 0.5
