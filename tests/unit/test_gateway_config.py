"""How a gateway is configured: flags over a TOML file, secrets in neither."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yarl
from msgspec import structs

from comfyload.app.gateway_config import read_options
from comfyload.app.gateway_options import GatewayOptions, is_loopback
from comfyload.errors import UsageError
from comfyload.hidden import without_hidden
from comfyload.record.gateway_options import GatewayFile, GatewayFlags, ServerTable, TenantTable
from comfyload.retry.policy import default, encode

URL = "http://127.0.0.1:8188"
EXAMPLE = Path(__file__).parents[2] / "infra" / "gateway" / "gateway.toml"
TOKEN = "a-token-that-is-long-enough"


def options(folder: Path, toml: str = "", server: list[str] | None = None, **flags: Any) -> GatewayOptions:
    (folder / "gateway.toml").write_text(toml)
    return read_options(GatewayFlags(**flags), server or [], str(folder / "gateway.toml"))


def refused(folder: Path, toml: str = "", server: list[str] | None = None, **flags: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        options(folder, toml, server, **flags)
    assert caught.value.hint and "\n" not in caught.value.message
    return caught.value


def test_flags_go_over_the_file(tmp_path: Path) -> None:
    toml = f'port = 9000\nhost = "::1"\ndrain_s = 5\nkeep_workflow = true\n[[server]]\nname = "big"\nurl = "{URL}"\n'
    found = options(tmp_path, toml, port=0, drain_s=0.0, ledger="there")
    assert (found.port, found.host, found.drain_s, found.ledger) == (0, "::1", 0.0, Path("there"))
    assert found.keep_workflow
    assert [(given.name, str(given.url)) for given in found.servers] == [("big", URL)]
    other = options(tmp_path, toml, ["one=http://10.0.0.1:8188", "http://10.0.0.2:8188"])
    assert [given.name for given in other.servers] == ["one", "gpu1"]


def test_without_a_file_the_defaults_hold() -> None:
    found = read_options(GatewayFlags(), [URL], None)
    assert (found.host, found.port, found.drain_s, str(found.ledger)) == ("127.0.0.1", 8189, 30.0, "ledger")
    assert found.tokens is None and found.operators is None and found.tls is None


def test_servers_stand_in_a_file_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU2", "Bearer xyzzy-plugh")
    servers = tmp_path / "servers.toml"
    servers.write_text(
        f'[[server]]\nurl = "{URL}"\n[[server]]\nname = "second"\nurl = "https://gpu2/comfy"\ninsecure = true\n'
        'headers = { Authorization = "env:GPU2" }\n'
    )
    found = options(tmp_path, f'[[server]]\nurl = "{URL}"\n', servers=str(servers))
    first, second = found.servers
    assert (first.name, second.name, str(second.url)) == ("gpu1", "second", "https://gpu2/comfy/")
    assert second.headers == {"Authorization": "Bearer xyzzy-plugh"} and second.insecure
    assert without_hidden("xyzzy-plugh") == "***"


def test_a_server_without_a_name_keeps_the_one_that_it_has() -> None:
    known = {yarl.URL("http://10.0.0.2:8188/"): "gpu2", yarl.URL("http://10.0.0.3:8188/"): "gpu3"}
    found = read_options(GatewayFlags(), ["http://10.0.0.4:8188", "http://10.0.0.3:8188"], None, known=known)
    assert [given.name for given in found.servers] == ["gpu1", "gpu3"]


@pytest.mark.parametrize(
    ("toml", "message", "hint"),
    [
        ("prot = 1", "unknown field `prot`", "did you mean port?"),
        ('[[server]]\nurll = "x"', "unknown field `urll`", "did you mean url?"),
        ('[[tenant]]\nname = "a"\ntokn = "env:A"', "unknown field `tokn`", "did you mean token?"),
        ('port = "8189"', "Expected `int", "infra/gateway/gateway.toml"),
        ('port = 70000\n[[server]]\nurl = "http://x"', "port = 70000", "free one"),
        ("port = ", "invalid TOML", "infra/gateway/gateway.toml"),
        ('drain_s = -1\n[[server]]\nurl = "http://x"', "drain_s", "seconds"),
        ("", "no server", "--server URL"),
        ('servers = "nowhere.toml"', "nowhere.toml", ""),
        ('[[server]]\nurl = "ftp://x"', "invalid --server", "http"),
        ('[[server]]\nname = "../x"\nurl = "http://x"', "'../x'", "letters"),
        ('[[server]]\nurl = "http://x"\n[[server]]\nurl = "http://x/"', "gpu2 is gpu1 once more", "once"),
        ('[[server]]\nname = "a"\nurl = "http://x"\n[[server]]\nname = "a"\nurl = "http://y"', "called 'a'", "once"),
        ('[[server]]\nurl = "http://x"\nheaders = { A = "env:UNSET_9" }', "server gpu1: --header A: the", "UNSET_9"),
        ('[[server]]\nurl = "https://x"\nca_file = "no.pem"', "ca_file no.pem", "PEM"),
        ('tls_cert = "x.pem"\n[[server]]\nurl = "http://x"', "belong together", "both"),
    ],
)
def test_what_is_not_valid_is_refused_in_words(tmp_path: Path, toml: str, message: str, hint: str) -> None:
    error = refused(tmp_path, toml)
    assert message in error.message
    assert hint in error.hint


# --- who may call


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "gateway.local"])
def test_off_loopback_a_token_is_demanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    error = refused(tmp_path, server=[URL], host=host)
    assert "no token is demanded" in error.message and "everybody can use your GPUs" in error.hint
    monkeypatch.setenv("T", TOKEN)
    found = options(tmp_path, server=[URL], host=host, token="env:T")
    assert found.tokens == {"default": TOKEN} and found.operators == {"default"}
    found = options(tmp_path, server=[URL], host=host, no_auth=True)
    assert found.tokens is None and found.operators == frozenset(), "no stranger directs the servers"
    assert "contradict" in refused(tmp_path, server=[URL], host=host, no_auth=True, token="env:T").message


def test_behind_a_proxy_nobody_directs_the_servers_without_a_token(tmp_path: Path) -> None:
    found = options(tmp_path, server=[URL], allow_host=["comfy.example.org"])
    assert (found.tokens, found.operators, found.allowed_hosts) == (None, frozenset(), ["comfy.example.org"])


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True),
                                                ("localhost", True), ("0.0.0.0", False), ("x", False)])  # fmt: skip
def test_what_loopback_is(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_tenants_have_tokens_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP", f"{TOKEN}-1")
    (tmp_path / "token").write_text(f"{TOKEN}-2\n")
    toml = f"""
        [[server]]
        url = "{URL}"
        [[tenant]]
        name = "shop"
        token = "env:SHOP"
        [[tenant]]
        name = "ops"
        token_file = "{tmp_path}/token"
        operator = true
    """
    found = options(tmp_path, toml)
    assert found.tokens == {"shop": f"{TOKEN}-1", "ops": f"{TOKEN}-2"}
    assert found.operators == {"ops"}
    assert without_hidden(f"{TOKEN}-2") == "***"


@pytest.mark.parametrize(
    ("tenant", "message"),
    [
        ('token = "my-own-long-secret-token"', "stands in the file itself"),
        ('token = "env:UNSET_9"', "has no UNSET_9"),
        ('token = "env:SHORT"', "shorter than 16"),
        ('token = "env:ODD"', "has odd ones"),
        ("", "needs a token"),
        ('token = "env:GOOD"\ntoken_file = "x"', "needs a token"),
        ('token = "env:GOOD"\n[[tenant]]\nname = "a"\ntoken = "env:GOOD"', "'a' twice"),
        ('token = "env:GOOD"\n[[tenant]]\nname = "b"\ntoken = "env:GOOD"', "another tenant's token"),
    ],
)
def test_a_token_is_safe_or_refused_without_being_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tenant: str, message: str
) -> None:
    values = {"SHORT": "tooshort", "ODD": "long enough but with spaces", "GOOD": TOKEN}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    error = refused(tmp_path, f'[[server]]\nurl = "{URL}"\n[[tenant]]\nname = "a"\n{tenant}')
    assert message in error.message
    assert not any(secret in str(error) for secret in [*values.values(), "my-own-long-secret-token"])


def test_a_policy_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "retry.json").write_bytes(encode(structs.replace(default(77.0), attempts=2)))
    found = options(tmp_path, server=[URL], retry_policy=str(tmp_path / "retry.json"))
    assert (found.policy.deadline_s, found.policy.attempts) == (77.0, 2)
    (tmp_path / "retry.json").write_text("{")
    assert "retry policy" in refused(tmp_path, server=[URL], retry_policy=str(tmp_path / "retry.json")).message


# --- the example that we ship


def test_the_example_is_read_and_names_every_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also with everything in it that is commented out."""
    text = EXAMPLE.read_text()
    for name in ("COMFYLOAD_TOKEN", "GPU2_AUTHORIZATION", "SHOP_TOKEN"):
        monkeypatch.setenv(name, f"{TOKEN}-{name}")
    monkeypatch.setattr("comfyload.app.run.server_tables.read_text", _text_of(text))
    found = read_options(GatewayFlags(), [], "gateway.toml")
    assert found.tokens is not None and found.servers
    whole = re.sub(r"^#(?=\[|\w+ = )", "", text, flags=re.MULTILINE)
    assert whole != text
    for module in ("gateway_config", "run.server_tables"):
        monkeypatch.setattr(f"comfyload.app.{module}.read_text", _text_of(whole))
    monkeypatch.setattr("comfyload.app.run.server_tables.tls_context", lambda *_: None)
    full = read_options(GatewayFlags(), [], "gateway.toml")
    assert len(full.servers) > len(found.servers) and full.tokens is not None and len(full.tokens) > 1
    for kind in (GatewayFile, ServerTable, TenantTable):
        for name in set(kind.__struct_fields__) - {"server", "tenant"}:
            assert re.search(rf"^#?{name} = ", text, re.MULTILINE), f"the example has no {name}"


def _text_of(example: str) -> Any:
    def read(path: str) -> str:
        contents = {"gateway.toml": example, "/etc/comfyload/servers.toml": f'[[server]]\nurl = "{URL[:-1]}9"\n'}
        contents["/etc/comfyload/retry.json"] = "{}"
        return contents.get(path, f"{TOKEN}-{path}")

    return read
