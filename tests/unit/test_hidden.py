"""A secret is hidden in every form in which a message, an address or a traceback may quote it."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from comfyload import hidden
from comfyload.app.export import export
from comfyload.comfy.address import parse_server, redacted, scrape_url
from comfyload.errors import UsageError
from comfyload.hidden import hide, without_hidden


@pytest.fixture(autouse=True)
def _nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden, "_hidden", set())


@pytest.mark.parametrize(
    "secret", ["p€ss/w rd", "quo'te\"d", "back\\slash", "pässwort", "new\nline", "caf\udce9s", "a+b c"]
)
def test_a_secret_is_hidden_however_it_is_quoted(secret: str) -> None:
    hide(secret)
    octets = secret.encode("utf-8", "surrogateescape")
    for text in (secret, repr({"X": secret}), repr(octets), json.dumps(secret), quote(octets), quote(octets, safe="")):
        assert "***" in without_hidden(text) and without_hidden(text).count("*") == 3, text


@pytest.mark.parametrize(
    "address",
    [
        "http://hunter22@h:1",
        "http://u:hunter22@h:1",
        "http://h:1/?hunter22",
        "http://h:1/?k=hunter22",
        "http://h:1/?hunter22=",
    ],
)
def test_what_is_secret_of_an_address_is_hidden_and_not_shown(address: str) -> None:
    for read in (parse_server, scrape_url):
        assert "hunter22" not in redacted(read(address))
        assert without_hidden(f"GET {address}").count("***") == 1


@pytest.mark.parametrize("host", ["x" * 64, "a..b", ".b"])
def test_what_no_name_server_could_know_is_no_address(host: str) -> None:
    with pytest.raises(UsageError, match="invalid --server"):
        parse_server(f"http://{host}:8188")


def test_what_is_secret_of_a_collector_of_traces_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=zz%20SEKRET11,x-other=SEKRET12")

    def refuse(url: str, *_: object) -> int:
        raise UsageError(f"{url} did not take the traces")

    monkeypatch.setattr("comfyload.app.export.send_otlp", refuse)
    run = next((Path(__file__).parents[1] / "data" / "archive_v1" / "2026-11-23-small" / "runs").iterdir())
    with pytest.raises(UsageError) as refused:
        list(export(run, otlp="http://user:hunter22@127.0.0.1:1/?tok=SEKRET99"))
    assert without_hidden(refused.value.message) == "http://user:***@127.0.0.1:1/?tok=*** did not take the traces"
    assert without_hidden("hunter22 zz SEKRET11 SEKRET12") == "*** *** ***"
