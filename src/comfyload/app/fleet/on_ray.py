"""Shards on the nodes of a Ray cluster: an actor on each runs the ordinary program as a process of its own.

The actors are plain ones, not asyncio's, and are never restarted: a shard that is lost stays lost. They are detached,
so that they outlive the command that made them; `fleet attach` finds them by their names. All nodes see the run
directory and the folder that the command is called in, as on a file system that they share.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

from comfyload.app.run.sharing import LOADS_S, SHARE_S
from comfyload.errors import RunFilesError, UsageError
from comfyload.record.fleet import FLEET
from comfyload.words import count, duration

NAMESPACE = "comfyload"
MARK = "ray"
"""The first word by which `fleet.json` names a process on Ray; then the cluster's address, then the actor's name."""
PLACED_S = 60.0
"""How long Ray may take to find a core for each shard, and to start its actor there."""
ANSWERS_S = 3.0
"""An actor that does not answer for so long is lost, with its shard."""
CONNECTS_S = 5.0
UNUSED_S = 60.0
"""How long an actor stays that has no process, where nobody asks for it."""
_PINGS = 7


class NodeProcess:
    """The actor: on its node it starts one process, and answers for it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        threading.Thread(target=self._end_unused, daemon=True).start()

    def facts(self) -> tuple[str, str, str, int]:
        """The node's name for people, its id, the version of comfyload on it, and its cores."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return socket.gethostname(), node, version("comfyload"), os.cpu_count() or 1

    def clock(self) -> float:
        """The node's wall clock, in Unix seconds."""
        return time.time()

    def sees(self, file: str, content: bytes, folder: str) -> bool:
        """Whether the node has the file as it is elsewhere, and the folder."""
        with suppress(OSError):
            return Path(file).read_bytes() == content and Path(folder).is_dir()
        return False

    def begin(self, words: Sequence[str], folder: str, more: Mapping[str, str], errors: str) -> None:
        """Start `comfyload WORDS` in the folder; what it says on standard error goes to the file."""
        with Path(errors).open("ab", buffering=0) as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "comfyload", *words],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=output,
                env={**os.environ, "NO_COLOR": "1", **more},
            )
        threading.Thread(target=self._end_with, args=(self._process,), daemon=True).start()

    def alive(self) -> bool:
        """Whether its process goes on."""
        return self._process is not None and self._process.poll() is None

    def interrupt(self) -> None:
        """As Ctrl-C does."""
        if self._process is not None and self.alive():
            self._process.send_signal(signal.SIGINT)

    def _end_unused(self) -> None:
        time.sleep(UNUSED_S)
        if self._process is None:
            os._exit(0)

    def _end_with(self, process: "subprocess.Popen[bytes]") -> None:
        process.wait()
        time.sleep(UNUSED_S)  # who follows the run has ended this actor by then
        os._exit(0)


class RayProcess:
    """A shard on a Ray cluster, as the seam to a machine knows it."""

    def __init__(self, name: str, actor: Any) -> None:
        self.name = name
        self._actor = actor

    def alive(self) -> bool:
        if self._ask("alive") is True:
            return True
        self._free()
        return False

    def interrupt(self) -> None:
        self._ask("interrupt")

    def _free(self) -> None:
        """End the actor, which holds a core."""
        import ray

        if self._actor is not None:
            ray.kill(self._actor)
            self._actor = None

    def _ask(self, method: str) -> object:
        """The actor's answer; None: it is gone."""
        import ray

        if self._actor is None:
            return None
        try:
            return ray.get(getattr(self._actor, method).remote(), timeout=ANSWERS_S)
        except ray.exceptions.RayError:  # it died, its node did, or nothing is heard of it
            return None


class RayNodes:
    """Actors for all shards of a run, on as many nodes as there are. `hosts`: of each, its node. `ahead_s`: how far the
    wall clocks of nodes are ahead of the first one's, known within `within_s`.
    """

    def __init__(self, address: str, shards: int) -> None:
        """Raises: UsageError: there is no such cluster, or too few cores are free, or its comfyload is another one."""
        ray = _connected(address)
        self._ray, self._address, self._next = ray, address, 0
        fleet = secrets.token_hex(4)
        self._names = [f"{fleet}-{number}" for number in range(shards)]
        actor = ray.remote(NodeProcess)
        made = [
            actor.options(
                name=name, namespace=NAMESPACE, lifetime="detached", num_cpus=1, max_restarts=0, max_task_retries=0,
                scheduling_strategy="SPREAD",
            ).remote()
            for name in self._names
        ]  # fmt: skip
        self._actors = made
        try:
            self.hosts = self._placed()
            offsets = [self._offset(one) for one in made]
        except BaseException:
            self.drop()
            raise
        of_host = dict[str, tuple[float, float]]()
        for host, (offset, within) in zip(self.hosts, offsets, strict=True):
            if host not in of_host or within < of_host[host][1]:
                of_host[host] = offset, within
        self._ahead_of_here = {host: offset for host, (offset, _) in of_host.items()}
        first = self._ahead_of_here[self.hosts[0]]
        self.ahead_s = {host: offset - first for host, offset in self._ahead_of_here.items()}
        self.within_s = max(within for _, within in of_host.values())

    def start(self, words: Sequence[str], host: str, more: Mapping[str, str], errors: Path) -> RayProcess:
        """Start the next shard on the next node, at the instant that its own clock shows when the load is to begin.

        Raises:
            RunFilesError: a node does not see the directory.
        """
        number, self._next = self._next, self._next + 1
        if number == 0:
            self._check_shared(errors.parent)
        place = words.index("--start-at") + 1
        instant = datetime.fromisoformat(words[place]) + timedelta(seconds=self._ahead_of_here[host])
        words = [*words[:place], instant.isoformat(), *words[place + 1 :]]
        actor = self._actors[number]
        try:
            self._ray.get(
                actor.begin.remote(words, str(Path.cwd()), dict(more), str(errors.absolute())), timeout=PLACED_S
            )
        except self._ray.exceptions.RayError as error:
            self.drop()
            raise RunFilesError(f"shard {number} cannot be started on {host}: {error}") from None
        return RayProcess(f"{MARK} {self._address} {self._names[number]}", actor)

    def start_in_s(self) -> float:
        """How long the shards need until they could send, by the node that has the most of them for its cores."""
        return LOADS_S + SHARE_S * max(many / self._cores[host] for host, many in Counter(self.hosts).items())

    def words(self) -> str:
        """Where the shards are, and how well their clocks are known, for people."""
        nodes = count(len(set(self.hosts)), "node")
        return f"{count(len(self.hosts), 'shard')} on {nodes}, their clocks compared within {duration(self.within_s)}"

    def drop(self) -> None:
        """End all actors, and what they started."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _placed(self) -> list[str]:
        """The node of each actor; two with one name get their ids behind it."""
        calls = [actor.facts.remote() for actor in self._actors]
        ready, waiting = self._ray.wait(calls, num_returns=len(calls), timeout=PLACED_S)
        if waiting:
            few = f"within {PLACED_S:g} s Ray has started {len(ready)} of {count(len(calls), 'actor')}"
            raise UsageError(few, "each needs a free core: give fewer shards, or wait until others are done")
        try:
            facts: list[tuple[str, str, str, int]] = self._ray.get(calls)
        except self._ray.exceptions.RayError as error:
            last = str(error).strip().rpartition("\n")[2]
            raise UsageError(f"a node of the Ray cluster cannot run comfyload: {last}", "install it there") from None
        ours = version("comfyload")
        for host, _, theirs, _ in facts:
            if theirs != ours:
                raise UsageError(f"{host} has comfyload {theirs}, this is {ours}", "install the same one")
        nodes = {(host, node) for host, node, _, _ in facts}
        alike = Counter(host for host, _ in nodes)
        hosts = [host if alike[host] == 1 else f"{host}-{node[:8]}" for host, node, _, _ in facts]
        self._cores = {host: cores for host, (_, _, _, cores) in zip(hosts, facts, strict=True)}
        return hosts

    def _offset(self, actor: Any) -> tuple[float, float]:
        """How far the node's clock is ahead of ours, and within what that is known: by the quickest of some answers."""
        best = (0.0, float("inf"))
        for _ in range(_PINGS):
            sent = time.time()
            theirs = self._ray.get(actor.clock.remote())
            answered = time.time()
            within = (answered - sent) / 2
            if within < best[1]:
                best = theirs - (sent + answered) / 2, within
        return best

    def _check_shared(self, path: Path) -> None:
        file = (path / FLEET).absolute()
        content = file.read_bytes()
        calls = [actor.sees.remote(str(file), content, str(Path.cwd())) for actor in self._actors]
        for host, sees in zip(self.hosts, self._ray.get(calls), strict=True):
            if not sees:
                self.drop()
                hint = "call the command in a folder that all nodes share, and give such a --run-dir"
                raise RunFilesError(f"{host} does not see {file.parent} or {Path.cwd()}", hint)


def found_on_ray(process: str) -> RayProcess:
    """A shard that an earlier command started on Ray, by how `fleet.json` names it.

    Raises:
        UsageError: the cluster cannot be reached.
    """
    _, address, name = process.split(" ", 2)
    ray = _connected(address)
    try:
        return RayProcess(process, ray.get_actor(name, namespace=NAMESPACE))
    except ValueError:  # it has ended
        return RayProcess(process, None)


def _connected(address: str) -> Any:
    """The module `ray`, connected to the cluster at the address."""
    try:
        import ray
    except ImportError:
        raise UsageError("Ray is not installed", "pip install 'comfyload[ray]'") from None
    if not ray.is_initialized():
        _check_reachable(address)
        try:
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            what = str(error).strip().partition("\n")[0]
            raise UsageError(
                f"there is no Ray cluster at {address}: {what}", "begin one with: ray start --head"
            ) from None
    return ray


def _check_reachable(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself would try for minutes.

    Raises:
        UsageError: nothing does.
    """
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=CONNECTS_S).close()
        except OSError as error:
            what = f"there is no Ray cluster at {address}: {error.strerror or error}"
            raise UsageError(what, "begin one with: ray start --head") from None
