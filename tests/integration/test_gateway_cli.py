"""`comfyload gateway`, `jobs` and `servers` as processes, with simulators behind real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from comfyload.sim import Faults, Server
from comfyload.sim.faults import Which
from tests.support.commands import Forked, call
from tests.support.rig import sleeper
from tests.support.servers import in_thread, simulator

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="signals, and processes that are forked"),
]  # processes that start, drain and are started again

TOKEN = "an-operator-s-token-0123456789"
HEADER = "Bearer a-server-s-own-token-987654"
PASSWORD = "the-password-in-an-address"
PEM = Path(__file__).parents[1] / "data" / "loopback.pem"


@contextlib.contextmanager
def gateway(folder: Path, *words: str, **env: str) -> Iterator[tuple[str, Forked]]:
    """The command, until the context ends; its address and itself."""
    command = Forked(["gateway", "--port", "0", *words], folder, {**os.environ, **env})
    try:
        yield command.first_line(), command
    finally:
        command.kill()
        with contextlib.suppress(ValueError):  # its files are closed: the test has read them
            command.communicate(30)


class Denial(Exception):
    """The status of an answer that is an error, and its headers."""

    def __init__(self, code: int, headers: Mapping[str, str]) -> None:
        super().__init__(code)
        self.code = code
        self.headers = headers


def ask(url: str, path: str, body: Any = None, **headers: str) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/{path}", data, {"Content-Type": "application/json", **headers})
    context = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as reply:
            return json.loads(reply.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            raise Denial(error.code, dict(error.headers)) from None


def until(condition: Callable[[], Any], within_s: float = 15.0) -> Any:
    end = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)
    return found


def state_of(url: str, prompt_id: str, **headers: str) -> str:
    return str(ask(url, f"comfyload/api/jobs/{prompt_id}", **headers)["state"])


def said(command: Forked) -> str:
    """What it printed on standard error so far."""
    return os.pread(command._said[1].fileno(), 1 << 16, 0).decode()


def test_a_job_that_failed_is_sent_again_from_the_command_line(tmp_path: Path) -> None:
    """The server mends while the job needs attention: sent again, it is done."""
    broken = Faults(node_error=Which(every=1), error_type="ValueError", error_message="a bad day")
    with contextlib.ExitStack() as stack:
        server, simulated = stack.enter_context(in_thread(lambda: Server(speed=20.0, faults=broken)))
        other = stack.enter_context(simulator())
        url, _ = stack.enter_context(gateway(tmp_path, "--server", server))

        def run(*words: str, code: int = 0) -> str:
            done = call(*words, "--gateway", url, cwd=tmp_path)
            assert done.returncode == code, done.stderr
            return done.stdout

        assert "No jobs." in run("jobs")
        old = ask(url, "prompt", {"prompt": sleeper(0.1)})["prompt_id"]
        until(lambda: state_of(url, old) == "failed")
        shown = run("jobs", "--failed")
        assert "needs attention" in shown and old in shown and "a bad day" in shown
        found = json.loads(run("jobs", "--failed", "--json"))
        assert [job["id"] for job in found["jobs"]] == [old] and "a bad day" in found["jobs"][0]["error"]
        assert "a bad day" in run("jobs", old)

        simulated._faults = Faults()
        done = json.loads(run("jobs", "--retry", old, "--json"))["sent"]
        new = done[0]["id"]
        assert done == [{"id": new, "instead_of": old}]
        until(lambda: state_of(url, new) == "completed")
        assert json.loads(run("jobs", "--retry", old, "--json"))["sent"][0]["id"] == new
        assert "No job needs attention." in run("jobs", "--retry", "--all")
        assert f"sent again as: {new}" in run("jobs", old)

        simulated._faults = broken
        more = [ask(url, "prompt", {"prompt": sleeper(0.2 + n / 100)})["prompt_id"] for n in range(3)]
        until(lambda: all(state_of(url, each) == "failed" for each in more))
        assert "1 job dismissed." in run("jobs", "--dismiss", more[0])
        simulated._faults = Faults()
        shown = run("jobs", "--retry", "--all")
        assert [line.split()[0] for line in shown.splitlines()] == more[1:]
        until(lambda: ask(url, "comfyload/api/jobs?state=completed")["total"] == 3)
        assert "No jobs." in run("jobs", "--failed")

        assert "there is no such job" in call("jobs", "nothing", "--gateway", url, cwd=tmp_path).stderr
        assert call("jobs", "--retry", "nothing", "--gateway", url, cwd=tmp_path).returncode == 2

        # A server joins, the first is drained, leaves, and the work goes on.
        assert "gpu2" in run("servers", "join", other, "--name", "gpu2")
        listed = json.loads(run("servers", "--json"))
        assert [(each["name"], each["state"]) for each in listed["servers"]] == [("gpu1", "up"), ("gpu2", "up")]
        assert "gpu1" in run("servers") and "up" in run("servers")
        assert "gets no more jobs" in run("servers", "drain", "gpu1")
        assert "gets jobs" in run("servers", "resume", "gpu1")
        assert "leaves" in run("servers", "leave", "gpu1")
        until(lambda: len(json.loads(run("servers", "--json"))["servers"]) == 1)
        last = ask(url, "prompt", {"prompt": sleeper(0.3)})["prompt_id"]
        until(lambda: state_of(url, last) == "completed")
        assert call("servers", "drain", "gpu1", "--gateway", url, cwd=tmp_path).returncode == 2
    assert call("jobs", "--gateway", url, cwd=tmp_path).returncode == 4


def test_secrets_are_demanded_and_are_in_no_file(tmp_path: Path) -> None:
    with simulator() as first, simulator() as second:
        secret = second.replace("http://", f"http://me:{PASSWORD}@")
        (tmp_path / "gateway.toml").write_text(f"""
            ledger = "there"
            keep_workflow = true
            token = "env:OPERATOR"
            tls_cert = "{PEM}"
            tls_key = "{PEM}"
            [[server]]
            name = "one"
            url = "{first}"
            headers = {{ Authorization = "env:SERVER_ONE" }}
            [[server]]
            name = "two"
            url = "{secret}"
        """)
        with gateway(tmp_path, "--config", "gateway.toml", OPERATOR=TOKEN, SERVER_ONE=HEADER) as (url, command):
            assert url.startswith("https://")
            with pytest.raises(Denial) as denied:
                ask(url, "prompt")
            assert denied.value.code == 401
            let_in = {"Authorization": f"Bearer {TOKEN}"}
            graphs = [sleeper(2.0 + number / 100) for number in range(6)]
            jobs = [ask(url, "prompt", {"prompt": graph}, **let_in)["prompt_id"] for graph in graphs]
            until(lambda: all(state_of(url, job, **let_in) == "completed" for job in jobs))
            shown = json.dumps(ask(url, "comfyload/api/servers", **let_in))
            command.terminate()
            out, err = command.communicate(30)
            assert command.returncode == 0
        files = [path for path in (tmp_path / "there").rglob("*") if path.is_file()]
        assert sum(path.name == "manifest.json" for path in files) == 2
        texts = [shown.encode(), out.encode(), err.encode(), *(path.read_bytes() for path in files)]
        for hidden in (TOKEN, HEADER, HEADER.split()[1], PASSWORD):
            assert not any(hidden.encode() in text for text in texts)


def test_a_command_without_the_token_is_told_so(tmp_path: Path) -> None:
    with simulator() as server, gateway(tmp_path, "--server", server, "--token", "env:T", T=TOKEN) as (url, _):
        done = call("jobs", "--gateway", url, cwd=tmp_path)
        assert done.returncode == 4 and "export COMFYLOAD_TOKEN" in done.stderr
        done = call("jobs", "--gateway", url, cwd=tmp_path, env={**os.environ, "COMFYLOAD_TOKEN": TOKEN})
        assert done.returncode == 0 and "No jobs." in done.stdout
        done = call("servers", "--gateway", server, cwd=tmp_path)
        assert done.returncode == 4 and "no gateway" in done.stderr


def test_off_loopback_it_starts_with_a_token_or_with_words_that_hurt(tmp_path: Path) -> None:
    done = call("gateway", "--server", "http://127.0.0.1:1", "--host", "0.0.0.0", cwd=tmp_path)
    assert done.returncode == 2 and "no token is demanded" in done.stderr
    assert not (tmp_path / "ledger").exists()
    with gateway(tmp_path, "--server", "http://127.0.0.1:1", "--host", "0.0.0.0", "--no-auth") as (url, command):
        assert "everybody who reaches this address can run any workflow" in said(command)
        local = url.replace("0.0.0.0", "127.0.0.1")
        with pytest.raises(Denial) as denied:
            ask(local, "comfyload/api/servers", {"url": "http://10.0.0.1:8188"})
        assert denied.value.code == 403, "no stranger has prompts sent to a server of his own"


def test_hangup_reloads_and_an_invalid_file_is_said(tmp_path: Path) -> None:
    with simulator() as first, simulator() as second:
        config, policy = tmp_path / "gateway.toml", tmp_path / "retry.json"

        def write(*servers: str, more: str = "") -> None:
            tables = "".join(f'[[server]]\nurl = "{server}"\n' for server in servers)
            config.write_text(f'retry_policy = "{policy}"\n{more}\n{tables}')

        policy.write_text('{"deadline_s": 600}')
        write(first)
        with gateway(tmp_path, "--config", "gateway.toml") as (url, command):

            def names() -> list[str]:
                return [f"{each['name']} {each['state']}" for each in ask(url, "comfyload/api/servers")["servers"]]

            assert names() == ["gpu1 up"]
            write(first, second)
            command.send_signal(signal.SIGHUP)
            until(lambda: names() == ["gpu1 up", "gpu2 up"])
            write(second, more="prot = 1")
            command.send_signal(signal.SIGHUP)
            until(lambda: "nothing was changed" in said(command))
            assert "did you mean port?" in said(command) and names() == ["gpu1 up", "gpu2 up"]
            policy.write_text('{"deadline_s": "never"}')
            write(second)
            command.send_signal(signal.SIGHUP)
            until(lambda: said(command).count("nothing was changed") == 2)
            assert names() == ["gpu1 up", "gpu2 up"]
            policy.write_text('{"deadline_s": 0.5}')
            command.send_signal(signal.SIGHUP)
            until(lambda: names() == ["gpu2 up"])
            assert "reload: gpu1 leaves; the retry policy is another" in said(command)
            job = ask(url, "prompt", {"prompt": sleeper(40.0)})["prompt_id"]
            until(lambda: state_of(url, job) == "failed", 10)


def test_it_drains_within_its_limit_and_leaves_jobs_to_the_next_process(tmp_path: Path) -> None:
    with simulator() as server:
        words = ("--server", server, "--drain", "500ms")
        with gateway(tmp_path, *words) as (url, command):
            jobs = [ask(url, "prompt", {"prompt": sleeper(30.0 + n)})["prompt_id"] for n in range(4)]
            until(lambda: state_of(url, jobs[0]) == "in_progress")
            began = time.monotonic()
            command.terminate()
            assert command.wait(10) == 0
            assert 0.4 < time.monotonic() - began < 6.0
        assert len(ask(server, "queue")["queue_running"]) == 1, "it goes on there"
        with gateway(tmp_path, *words) as (url, command):
            assert {state_of(url, job) for job in jobs} <= {"pending", "in_progress", "completed"}
            until(lambda: all(state_of(url, job) == "completed" for job in jobs), 30)
            attempts = [ask(url, f"comfyload/api/jobs/{job}")["attempts"] for job in jobs]
        assert max(map(len, attempts)) <= 1
        history = ask(server, "history")
        assert sorted(history) == sorted(jobs), "each was run once"


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with simulator() as server, gateway(tmp_path, "--server", server, "--drain", "10m") as (url, command):
        job = ask(url, "prompt", {"prompt": sleeper(600.0)})["prompt_id"]
        until(lambda: state_of(url, job) == "in_progress")
        command.terminate()
        with pytest.raises(Denial) as denied:
            until(lambda: not ask(url, "prompt", {"prompt": sleeper(0.1)}))
        assert denied.value.code == 503 and denied.value.headers["Retry-After"] == "10"
        assert command.poll() is None, "it waits for the job that runs"
        began = time.monotonic()
        command.send_signal(signal.SIGINT)
        command.wait(10)
        assert time.monotonic() - began < 4.0
        assert ask(server, "queue")["queue_running"], "the job is the next process's"


def test_a_supervisor_is_told_when_it_is_ready_and_when_it_stops(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, simulator() as server:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(10)
        with gateway(tmp_path, "--server", server, NOTIFY_SOCKET=str(tmp_path / "notify")) as (_, command):
            assert channel.recv(100) == b"READY=1"
            command.terminate()
            assert channel.recv(100) == b"STOPPING=1"
            assert command.wait(10) == 0
