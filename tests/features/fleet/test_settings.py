"""``[crowdsec]``: the keys, every problem, and the files with the credentials."""

import tomllib
from pathlib import Path

import pytest

from ringfence.config.loader import parse
from ringfence.config.schema import Settings
from ringfence.errors import ConfigError
from ringfence.features.fleet.network_list import LIST
from ringfence.features.fleet.settings import CrowdsecSettings

HEAD = "[[asterisk]]\nami.enabled = false\n[crowdsec]\n"
WHOLE = "url = 'http://127.0.0.1:8080'\nmachine = 'pbx-a'\npassword_file = '/p'\nkey_file = '/k'\n"


def read(text: str) -> Settings:
    """Return a configuration with these keys."""
    return parse(tomllib.loads(HEAD + text), "here", {}, secrets=False)


def test_nothing_is_shared_by_default() -> None:
    """Without a url there is no local API, and the kernel tracks no connections for it."""
    settings = read("")

    assert settings.of(CrowdsecSettings) == CrowdsecSettings()
    assert settings.of(CrowdsecSettings).sharing is None
    assert not settings.plan(None).new_only
    assert LIST not in settings.plan(None).dropped


def test_the_credentials_are_read_when_they_are_needed(tmp_path: Path) -> None:
    """The files need not exist at the start, and their contents are masked."""
    password, key = tmp_path / "password", tmp_path / "key"
    settings = read(WHOLE.replace("/p", str(password)).replace("/k", str(key)))
    sharing = settings.of(CrowdsecSettings).sharing
    assert sharing is not None
    assert (sharing.interval, sharing.access.machine) == (10.0, "pbx-a")
    assert settings.plan(None).new_only
    assert settings.plan(None).dropped[-1] is LIST

    with pytest.raises(ValueError, match=r"^crowdsec.password_file: .* cannot be read: No such file"):
        sharing.access.password()
    password.write_text("secret\n", "utf-8")
    key.write_text("key\n", "utf-8")
    assert (sharing.access.password().reveal(), sharing.access.key().reveal()) == ("secret", "key")
    assert "secret" not in repr(sharing.access.password())


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8080",
        "http://127.3.2.1",
        "http://[::1]:8080",
        "https://192.0.2.1",
        "https://api.example",
    ],
)
def test_another_host_needs_tls_unless_it_is_allowed(url: str) -> None:
    """The API on this host may be asked by http; that on another host by https, or with ``allow_http``."""
    text = WHOLE.replace("http://127.0.0.1:8080", url)
    assert read(text).of(CrowdsecSettings).url == url
    clear = WHOLE.replace("127.0.0.1", "192.0.2.1")
    assert read(f"{clear}allow_http = true").of(CrowdsecSettings).url == "http://192.0.2.1:8080"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "url = 'http://127.0.0.1:8080'\nmachine = 'a'\nkey_file = '/k'",
            "crowdsec.password_file: is missing",
        ),
        (
            "url = 'http://127.0.0.1:8080'\nmachine = 'a'\npassword_file = '/p'",
            "crowdsec.key_file: is missing",
        ),
        (
            "url = 'http://127.0.0.1:8080'\npassword_file = '/p'\nkey_file = '/k'",
            "crowdsec.machine: is missing",
        ),
        (f"{WHOLE}interval = '0.5s'", "crowdsec.interval: "),
        (WHOLE.replace("http:", "ftp:"), "crowdsec.url: must be an address such as"),
        (WHOLE.replace("127.0.0.1", "192.0.2.1"), "crowdsec.url: must begin with https"),
        (WHOLE.replace("127.0.0.1", "[2001:db8::1]"), "crowdsec.url: must begin with https"),
        (WHOLE.replace("127.0.0.1", "localhost.example"), "crowdsec.url: must begin with https"),
        (WHOLE.replace("127", "user@127"), "crowdsec.url: must be an address such as"),
        (WHOLE.replace("8080", "8080/?limit=5"), "crowdsec.url: must have no query"),
        (WHOLE.replace("8080", "8080?"), "crowdsec.url: must have no query"),
        (WHOLE.replace("8080", "8080/#v1"), "crowdsec.url: must have no query"),
        (WHOLE.replace("pbx-a", "a b"), "crowdsec.machine: must be a name"),
    ],
)
def test_each_mistake_is_named(text: str, problem: str) -> None:
    """A mistake is reported with its key."""
    with pytest.raises(ConfigError) as caught:
        read(text)

    assert problem in str(caught.value)
