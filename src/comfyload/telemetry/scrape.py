"""A Prometheus endpoint, such as that of NVIDIA's DCGM exporter, read as Prometheus would."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable

from yarl import URL

from comfyload.comfy.address import with_credentials
from comfyload.telemetry.exposition import Exposition
from comfyload.telemetry.source import NoReading, Readings
from comfyload.telemetry.thread import ThreadSource

TIMEOUT_S = 5.0
MOST_BYTES = 16 * 2**20


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the credentials of the address to wherever it leads."""

    def redirect_request(self, *_: object) -> None:
        """None: its reply is an error, with its status."""


class Scrape(ThreadSource):
    """One endpoint, fetched and parsed in a thread. The headers that go to ComfyUI are not sent to it."""

    interval_s = 1.0
    timeout_s = 10.0

    def __init__(self, url: URL, name: str, clock: Callable[[], float]) -> None:
        self.name = name
        self._url = url
        self._shown = str(url.with_user(None).with_query(None))
        self._exposition = Exposition()
        super().__init__(clock)

    async def finish(self) -> Readings:
        """How many series were not kept is known only at the end."""
        cut = self._exposition.cut
        notes = [f"{cut} more series of {self._shown} were not kept"] if cut else []
        return Readings(notes=notes, read=False)

    def _values(self) -> dict[str, float | None]:
        try:
            return self._exposition.read(self._fetched())
        except urllib.error.HTTPError as error:
            raise NoReading(f"{self._shown} answers HTTP {error.code}") from None
        except urllib.error.URLError as error:
            reason = getattr(error.reason, "strerror", None) or error.reason
            raise NoReading(f"{self._shown}: {str(reason).lower()}") from None
        except (OSError, http.client.HTTPException) as error:
            raise NoReading(f"{self._shown}: {type(error).__name__}") from None
        except ValueError as error:
            raise NoReading(f"{self._shown} is not Prometheus text: {str(error)[:80]}") from None

    def _fetched(self) -> str:
        url, headers = with_credentials(self._url, {"Accept": "text/plain;version=0.0.4"})
        request = urllib.request.Request(str(url.with_fragment(None)), headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
        with opener.open(request, timeout=TIMEOUT_S) as response:
            body: bytes = response.read(MOST_BYTES + 1)
        if len(body) > MOST_BYTES:
            raise ValueError("larger than 16 MiB")
        return body.decode("utf-8", "replace")
