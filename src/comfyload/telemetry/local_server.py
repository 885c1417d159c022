"""Whether the server runs on this machine, so that this machine's readings are the server's."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from comfyload.telemetry.source import NotAvailable

if TYPE_CHECKING:
    from comfyload.record.environment.server_process import ListeningProcess
    from comfyload.record.model import Server


class LocalServer:
    """Looked up once, in the thread of the first source that needs it: it takes some hundredths of a second."""

    def __init__(self, server: Server) -> None:
        self.server = server

    @cached_property
    def listener(self) -> ListeningProcess:
        """The server's process.

        Raises:
            NotAvailable: nothing shows that the server is on this machine. The run's environment says why.
        """
        from comfyload.record.environment.server_process import find_listener, why_elsewhere

        found = find_listener(self.server.url)
        if why_elsewhere(self.server, found):
            raise NotAvailable
        return found
