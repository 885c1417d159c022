"""What we report to systemd, as a service of `Type=notify`, as sd_notify(3) has it."""

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Tell it `READY=1`, `STOPPING=1` and the like, if it started us and listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        # An address that begins with @ is in Linux's abstract namespace.
        channel.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        channel.sendall(state.encode())
