"""Finds out whether a server runs on this machine, and its process and folder."""

import ipaddress
import os
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from msgspec import Struct

from comfyload.record.model import Server

MEMORY_AGREES = 0.001
"""Both read the same number from the same kernel, but in a virtual machine it may change in between."""

TUNNELS = (
    *("ssh", "autossh", "sshd", "plink", "kubectl", "cloudflared", "socat", "frpc", "chisel", "ngrok", "bore"),
    *("tailscaled", "stunnel", "stunnel4", "wstunnel", "gost", "rathole", "boringtun", "wslrelay"),
)
"""Programs that listen here for a server that is elsewhere; on Windows with `.exe` behind."""

KERNELS = ("posix", "nt", "linux", "win32", "darwin")
"""ComfyUI's names of systems: `os.name` until 0.3, `sys.platform` since."""

UNCONFIRMED = "the server does not report its memory, so that nothing shows that it is on this machine"
"""Why a server counts as elsewhere although it may be here."""

GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES")


class ListeningProcess(Struct, frozen=True, kw_only=True):
    """The process that listens on the server's port; `pid` None: we may not see it, and `why` is the reason.

    `gpu_environ`: the variables that limit which GPUs it sees; None: we may not see them. `contained`: it has process
    numbers of its own, as in a container.
    """

    pid: int | None = None
    name: str | None = None
    folder: Path | None = None
    why: str = ""
    command: list[str] = []
    gpu_environ: dict[str, str] | None = None
    contained: bool = False


def why_elsewhere(server: Server, listener: ListeningProcess) -> str:
    """Why facts of this machine are not facts of the server; "" if it runs here.

    An address of this machine is not enough, since a tunnel has one too: the memory that the server reports must be
    this machine's.
    """
    host = urlsplit(server.url).hostname or ""
    if not _is_own(host):
        return f"the server is on another machine ({host})"
    if listener.name is not None and listener.name.casefold().removesuffix(".exe") in TUNNELS:
        return f"a tunnel: {listener.name} listens on the server's port"
    kernel = server.system.get("os")
    if isinstance(kernel, str) and kernel in KERNELS and kernel not in (os.name, sys.platform):
        return f"the server runs under another system than this one ({kernel}): in a virtual machine or container"
    reported, ours = server.system.get("ram_total"), psutil.virtual_memory().total
    if not isinstance(reported, int | float) or isinstance(reported, bool):
        return UNCONFIRMED
    if abs(reported - ours) > MEMORY_AGREES * ours:
        return "the server's memory is not this machine's: a tunnel?"
    return ""


def find_listener(url: str) -> ListeningProcess:
    """The process that listens on the port of a server at an address of this machine."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        pids = [
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        ]
    except (psutil.Error, OSError) as error:
        return ListeningProcess(why=f"this machine does not show which process listens on port {port}: {error}")
    pid = next((pid for pid in pids if pid), None)
    if pid is None:
        why = "the process on port {} is not visible to this user" if pids else "no visible process listens on port {}"
        return ListeningProcess(why=why.format(port))
    try:
        process = psutil.Process(pid)
        name = process.name()
    except (psutil.Error, OSError):
        return ListeningProcess(why=f"we may not see process {pid}, which listens on port {port}")
    try:
        command, folder = process.cmdline(), Path(process.cwd())
    except (psutil.Error, OSError):
        return ListeningProcess(pid=pid, name=name, why=f"we may not see the folder of the process on port {port}")
    return ListeningProcess(
        pid=pid,
        name=name,
        folder=_program_folder(folder, command),
        command=command,
        gpu_environ=_gpu_environ(process),
        contained=_is_contained(pid),
    )


def _gpu_environ(process: psutil.Process) -> dict[str, str] | None:
    """The environment that the process was started with, without its own later changes."""
    try:
        environ = process.environ()
    except (psutil.Error, OSError):
        return None
    return {name: environ[name] for name in GPU_VARIABLES if name in environ}


def _is_contained(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink() != Path("/proc/self/ns/pid").readlink()
    except OSError:
        return False


def _program_folder(cwd: Path, command: list[str]) -> Path:
    """Where the `main.py` of the command lies, else where the process is."""
    script = next((part for part in command[1:] if Path(part).name == "main.py"), None)
    return cwd if script is None else (cwd / script).parent


def _is_own(host: str) -> bool:
    own = {address.address.partition("%")[0] for several in psutil.net_if_addrs().values() for address in several}
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return any(ipaddress.ip_address(one).is_loopback or one in own or one in ("0.0.0.0", "::") for one in found)
