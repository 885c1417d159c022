"""Whether the server runs on this machine, so that this machine's readings are the server's."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from comfyload.telemetry.source import NotAvailable

if TYPE_CHECKING:
    from comfyload.record.environment.server_process import ListeningProcess
    from comfyload.record.model import Server


class LocalServer:
    """Looked up once, in the thread of the first source that needs it: it takes some hundredths of a second."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._lock = threading.Lock()
        self._listener: ListeningProcess | None = None
        self._elsewhere = ""

    def listener(self) -> ListeningProcess:
        """The server's process.

        Raises:
            NotAvailable: nothing shows that the server is on this machine. The run's environment says why.
        """
        from comfyload.record.environment.server_process import find_listener, why_elsewhere

        with self._lock:
            if self._listener is None:
                self._listener = find_listener(self.server.url)
                self._elsewhere = why_elsewhere(self.server, self._listener)
        if self._elsewhere:
            raise NotAvailable
        return self._listener
