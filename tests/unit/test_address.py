"""How an address and its headers are read, and that nothing secret of them is shown."""

from __future__ import annotations

import base64

import pytest
from yarl import URL

from comfyload.app.library.connect import connect
from comfyload.comfy.address import parse_headers, parse_server, redacted, redirected, with_credentials
from comfyload.errors import UsageError


def credentials(text: str) -> bytes:
    """What goes out for an address, unpacked."""
    url, headers = with_credentials(parse_server(text), {"X-Else": "1"})
    assert url.user is None
    assert headers.pop("X-Else") == "1"
    return base64.b64decode(headers["Authorization"].removeprefix("Basic "))


@pytest.mark.parametrize(
    ("address", "sent"),
    [
        ("http://user:pass@h:1", b"user:pass"),
        ("user:pass@h:1", b"user:pass"),
        ("http://user:p%E2%82%ACss@h", "user:p€ss".encode()),
        ("http://user:p€ss@h", "user:p€ss".encode()),
        ("http://user:p%C3%A4sswort@h", "user:pässwort".encode()),
        ("http://us%40er:p%3Aa%2Fs%23s@h", b"us@er:p:a/s#s"),
        ("http://user:p%E4ss@h", b"user:p\xe4ss"),
        ("http://token@h", b"token:"),
        ("http://:pass@h", b":pass"),
        ("https://user:p%20s+s@h/base/?a=1", b"user:p s+s"),
    ],
)
def test_credentials_of_an_address_go_out_in_utf_8(address: str, sent: bytes) -> None:
    assert credentials(address) == sent


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
def test_credentials_twice_are_refused_in_one_line_without_them(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        with_credentials(parse_server("http://user:hunter2@h:1/"), {name: "Bearer abc"})
    assert str(caught.value) == (
        "http://h:1/: credentials are in the address and in the header Authorization (give one of them)"
    )
    with pytest.raises(UsageError):
        connect("http://user:hunter2@h:1/", headers={name: "Bearer abc"})


def test_a_colon_in_the_users_name_is_refused() -> None:
    with pytest.raises(UsageError, match="holds a colon"):
        with_credentials(parse_server("http://a%3Ab:c@h"), {})


@pytest.mark.parametrize(
    "address",
    [
        "http://user:hun/ter2@h",
        "http://user:hun#ter2@h",
        "http://user:hun?ter2@h",
        "ftp://user:hunter2@h/x?key=hunter2",
    ],
)
def test_an_address_that_cannot_be_read_is_quoted_without_its_secrets(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_server(address)
    assert "ter2" not in str(caught.value)
    assert "***@h" in str(caught.value)


def test_what_is_shown_of_an_address() -> None:
    assert redacted(URL("https://u:p@h:1/a/?token=x&b=y#frag")) == "https://h:1/a/?token=***&b=***"


@pytest.mark.parametrize(
    ("location", "where", "same"),
    [
        ("https://h/system_stats", "https://h/", True),
        ("https://u:p@h/system_stats?x=1#y", "https://h/", True),
        ("/comfy/system_stats", "http://h:8188/comfy/", True),
        ("//other/system_stats", "http://other/", True),
        ("system_stats/", "http://h:8188/system_stats/", False),
        ("https://sso/login?next=secret", "https://sso/login", False),
        ("http://[bad", "an invalid address", False),
        ("javascript:alert(1)", "an address that is not http (javascript)", False),
    ],
)
def test_where_a_server_redirects_to(location: str, where: str, same: bool) -> None:
    assert redirected(URL("http://h:8188/"), "system_stats", location) == (where, same)


@pytest.mark.parametrize("header", ["Ä=1", "A B=1", "A:=1", "=1", "X"])
def test_a_header_has_a_name_of_ascii(header: str) -> None:
    with pytest.raises(UsageError, match="NAME=VALUE"):
        parse_headers([header])


@pytest.mark.parametrize("value", ["a\x7f", "a\r\nB: c", "a\udce9"])
def test_a_header_holds_text(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_headers([f"X={value}"])
    assert value not in str(caught.value)
