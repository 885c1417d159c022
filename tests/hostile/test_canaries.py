"""Secrets planted wherever one can be given, every command provoked: none of them is in anything written or printed."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from aiohttp import web
from typer.testing import CliRunner

from comfyload.cli import app_of
from comfyload.sim import Server
from tests.support.rig import sleeper
from tests.support.servers import answering, in_thread

app = app_of()

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

HEADER, VARIABLE, USER, PASSWORD, QUERY = (
    f"CANARY-{name}-q7Zx" for name in ("header", "variable", "user", "password", "query")
)
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
CANARIES = (HEADER, VARIABLE, USER, PASSWORD, QUERY, BASIC)


def forms(secret: str) -> set[bytes]:
    """A secret as it may be written."""
    plain = secret.encode()
    return {plain, base64.b64encode(plain).rstrip(b"="), quote(secret, safe="").encode(), plain.hex().encode()}


LOOKED_FOR = {form: secret for secret in CANARIES for form in forms(secret)}


def found_in(content: bytes) -> set[str]:
    return {secret for form, secret in LOOKED_FOR.items() if form in content}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, with a graph; every file in it is searched afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMFYLOAD_CANARY", VARIABLE)
    (tmp_path / "g.json").write_text(json.dumps(sleeper(0.02)))
    (tmp_path / "c" / "custom_nodes").mkdir(parents=True)
    (tmp_path / "c" / "main.py").write_text("")
    yield tmp_path
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert not found_in(file.read_bytes()), file
            assert not found_in(os.fsencode(file)), file


def printed(*words: str | Path, codes: tuple[int, ...] = (0, 1, 2, 3, 4, 5)) -> str:
    """All that a command prints, its error included. No secret is in it."""
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "NO_COLOR": "1"})
    error = done.exception
    out = done.output
    if error is not None and not isinstance(error, SystemExit):
        assert hasattr(error, "exit_code"), repr(error)
        out += f"{error} {getattr(error, 'hint', '')} {getattr(error, '__notes__', '')}"
        assert error.exit_code in codes, out
    else:
        assert done.exit_code in codes, out
    assert not found_in(out.encode("utf-8", "replace")), out
    return out


SECRET = ["--header", f"X-Key={HEADER}", "--header", "X-Token=env:COMFYLOAD_CANARY"]


def with_secrets(url: str) -> str:
    """The address with a user, a password and a token in its query."""
    return f"{url.replace('://', f'://{USER}:{PASSWORD}@')}/?token={QUERY}"


def test_a_run_and_all_that_is_made_of_it_hold_no_secret(folder: Path) -> None:
    with in_thread(lambda: Server(speed=50)) as (plain, _):
        url = with_secrets(plain)
        printed(
            "run",
            "--server",
            url,
            "--workflow",
            "g.json",
            "-n",
            "3",
            "--run-dir",
            "r",
            "-o",
            "o.json",
            *SECRET,
            codes=(0, 5),
        )
        printed("doctor", "--server", url, "--workflow", "g.json", *SECRET)
        printed("doctor", "--server", url, "--workflow", "g.json", "--json", *SECRET)
        printed("run", "--server", url, "--workflow", "g.json", "--dry-run", *SECRET, codes=(0,))
        printed("run", "--server", url, "--workflow", "g.json", "--dry-run", "--json", *SECRET, codes=(0,))
        printed("resume", "r", "--server", url, *SECRET)
        printed("cleanup", "r", "--server", url, *SECRET)
    for words in (
        ("show", "r"),
        ("show", "r", "--json"),
        ("show", "r", "-o", "shown.json"),
        ("report", "r", "--html", "r.html"),
        ("check", "r", "--gate", "p95_latency_s <= 9", "--junit", "j.xml"),
        ("export", "r", "--csv", "x.csv", "--prometheus", "x.prom", "--otlp", "x.otlp"),
        ("baseline", "save", "r", "--name", "b", "--archive", "a"),
        ("compare", "r", "r"),
    ):
        printed(*words)


@pytest.mark.parametrize("status", [403, 500])
def test_a_server_that_repeats_what_it_was_sent_is_quoted_without_it(folder: Path, status: int) -> None:
    async def echo(request: web.Request) -> web.Response:
        words = f"you sent {dict(request.headers)} to {request.path_qs} as {USER}:{PASSWORD}"
        return web.Response(status=status, text=words, headers={"Retry-After": HEADER, "X-Echo": BASIC})

    with answering(echo) as plain:
        for words in provoked(with_secrets(plain)):
            printed(*words, codes=(0, 1, 2, 4))


@pytest.mark.parametrize("status", [302, 308])
def test_a_redirect_that_repeats_it_is_told_without_it(folder: Path, status: int) -> None:
    requests: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        requests.append(str(request.headers) + request.path_qs)
        return web.json_response({})

    with answering(elsewhere) as other:

        async def away(request: web.Request) -> web.Response:
            where = f"{other}/{quote(HEADER)}{request.path}?token={QUERY}&key={HEADER}&basic={BASIC}"
            return web.Response(status=status, headers={"Location": where})

        with answering(away) as plain:
            for words in provoked(with_secrets(plain)):
                printed(*words, codes=(0, 1, 2, 4))
    assert not requests


def test_a_refused_prompt_that_repeats_it_leaves_none_in_the_run(folder: Path) -> None:
    def refusing() -> Server:
        server = Server(speed=50)
        plain: Callable[..., object] = server.call

        async def call(request: object) -> object:
            if getattr(request, "method", "") == "POST" and getattr(request, "path", "").startswith("prompt"):
                from comfyload.comfy.wire.calls import Reply

                error = {"type": "x", "message": f"refused {HEADER} {VARIABLE} {BASIC} {QUERY}", "details": PASSWORD}
                return Reply(status=400, body=json.dumps({"error": error}).encode(), content_type="application/json")
            return await plain(request)  # type: ignore[misc]

        server.call = call  # type: ignore[assignment, method-assign]
        return server

    with in_thread(refusing) as (plain, _):
        printed(
            "run",
            "--server",
            with_secrets(plain),
            "--workflow",
            "g.json",
            "-n",
            "2",
            "--run-dir",
            "r",
            *SECRET,
            codes=(5,),
        )
    printed("show", "r", codes=(5,))
    printed("report", "r", "--html", "r.html")


@pytest.mark.parametrize(
    "address",
    [
        f"http://{USER}:{PASSWORD}@[::1:8188",
        f"http://{USER}:{PASSWORD}@host:99999",
        f"ftp://{USER}:{PASSWORD}@host/?token={QUERY}",
        f"{USER}:{PASSWORD}#x@host:8188",
        f"http://{USER}:{PASSWORD}/@host:8188/?token={QUERY}",
        f"http://host:8188\\?token={QUERY}",
        f"http://{USER}:{PASSWORD}@",
        f"//{USER}:{PASSWORD}@host:port",
        f"http://{USER}:{PASSWORD}@127.0.0.1:1/?token={QUERY}",
    ],
)
def test_an_address_that_cannot_be_right_is_refused_without_its_secret(folder: Path, address: str) -> None:
    for words in provoked(address):
        printed(*words, codes=(0, 1, 2, 4))
    printed("run", "--server", "127.0.0.1:1", "--workflow", "g.json", "-n", "1", "--scrape", address, codes=(2, 4))
    printed("checklist", "--server", "127.0.0.1:1", "--workflow", "g.json", "--scrape", address, codes=(2, 4))


@pytest.mark.parametrize(
    "header",
    [
        f"X Key={HEADER}",
        f"={HEADER}",
        HEADER,
        f"X-Key={HEADER}\n",
        f"X-Key={HEADER}\udce9",
        f"X-Key=env:{'NO_SUCH'}",
        f"X-Key\x1b={HEADER}",
    ],
)
def test_a_header_that_cannot_be_right_is_refused_without_its_value(folder: Path, header: str) -> None:
    for words in provoked("http://127.0.0.1:1", header):
        printed(*words, codes=(0, 1, 2, 4))


def provoked(url: str, *headers: str) -> list[list[str]]:
    """Every command that takes an address or a header."""
    given = [word for header in headers for word in ("--header", header)] or SECRET
    graph = ["--workflow", "g.json"]
    return [
        ["run", "--server", url, *graph, "-n", "1", *given],
        ["run", "--server", url, *graph, "-n", "1", "--dry-run", *given],
        ["doctor", "--server", url, *graph, *given],
        ["doctor", "--server", url, *graph, "--json", *given],
        ["saturate", "--server", url, *graph, *given],
        ["ab", "--a", url, "--b", url, *graph, "--pairs", "2", *given],
        ["faults", "--server", url, *graph, "--scenario", "blip", *given],
        ["checklist", "--server", url, *graph, *given],
        ["probe", "status", "c", "--server", url, *given],
        ["cleanup", "no-run", "--server", url, *given],
        ["resume", "no-run", "--server", url, *given],
    ]


def test_a_plan_keeps_names_of_variables_and_no_secret(folder: Path) -> None:
    plan = ["run", "--save-plan", "-", "--workflow", "g.json", "--server"]
    named = printed(*plan, "http://host:8188", "--header", "X-Token=env:COMFYLOAD_CANARY", codes=(0,))
    assert "X-Token=env:COMFYLOAD_CANARY" in named
    printed(*plan, "http://host:8188", *SECRET, codes=(0,))
    secret = with_secrets("http://host:8188")
    printed(*plan, secret, "--scrape", with_secrets("http://h"), codes=(0,))
    assert "A plan holds no secrets" in printed(
        "run", "--save-plan", "plan.toml", "--workflow", "g.json", "--server", secret, *SECRET, codes=(0,)
    )
    assert (folder / "plan.toml").exists(), "which is searched afterwards"


def test_what_a_plan_file_holds_is_not_told_when_it_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "g.json").write_text(json.dumps(sleeper(0.02)))
    for text in (
        f'server = "http://{USER}:{PASSWORD}@h"\nheaders = ["X={HEADER}", 5]\n',
        f'server = "http://{USER}:{PASSWORD}@h"\nheader = ["X={HEADER}"]\n',
        f'headers = ["X={HEADER}\n',
        f'headers = "X={HEADER}"\n',
        f'server = "ftp://{USER}:{PASSWORD}@h"\nheaders = ["X Y={HEADER}"]\n[[workflows]]\nfile = "g.json"\n',
    ):
        (tmp_path / "plan.toml").write_text(text)
        printed("run", "--plan", "plan.toml", codes=(2, 4))
