"""The effective configuration: every value in the form of the file, and where it comes from."""

import re
from pathlib import Path

import pytest

from ringfence.config.effective import Value, ValueOrigin, effective
from ringfence.config.schema import keys_of, text_of_key
from ringfence.errors import ConfigError
from ringfence.values.secret import MASK

CLEAR = "hunter2-correct-horse"


def read(folder: Path, text: str, **variables: str) -> dict[str, Value]:
    """Return the values of a configuration, by the text of their keys."""
    file = folder / "ringfence.toml"
    file.write_text(text, "utf-8")
    environ = {f"RINGFENCE_{name}": value for name, value in variables.items()}
    return {text_of_key(value.path): value for value in effective(file, environ)}


def test_every_key_has_a_value(tmp_path: Path) -> None:
    """An empty file has every key with its default; keys of tables that are absent are left out."""
    values = read(tmp_path, "")
    expected = [text_of_key(key.path) for key in keys_of()]

    assert [*values] == [
        key for key in expected if ".custom[" not in key and not re.match(r"notify\.\w+\[|feeds\[", key)
    ]
    assert {value.origin for value in values.values()} == {ValueOrigin.DEFAULT}


def test_values_have_the_form_of_the_file(tmp_path: Path) -> None:
    """Durations, ports, networks, choices and paths are written as the file has them."""
    text = """\
[[asterisk]]
logs.timezone = "Europe/Berlin"
[firewall]
sip_ports = ["5060", "5061/tcp", "5070/udp"]
action = "tcp-reset"
[allow]
networks = ["192.0.2.7", "2001:db8::/32"]
[rules.guess]
window = "90s"
ban = "1w 1d 2h"
"""
    values = {key: value.value for key, value in read(tmp_path, text).items()}

    assert values["asterisk[0].logs.timezone"] == "Europe/Berlin"
    assert values["firewall.sip_ports"] == ["5060", "5061/tcp", "5070/udp"]
    assert values["firewall.action"] == "tcp-reset"
    assert values["allow.networks"] == ["192.0.2.7/32", "2001:db8::/32"]
    assert values["rules.guess.window"] == "1m30s"
    assert values["rules.guess.ban"] == ["8d2h"]
    assert values["rules.guess.enabled"] is True
    assert values["firewall.max_bans"] == 262_144
    assert values["asterisk[0].ami.tls_ca"] is None
    assert values["store.path"] == "/var/lib/ringfence/ringfence.db"


def test_the_origin_of_each_value(tmp_path: Path) -> None:
    """A value comes from the environment, or else from a line of the file, or else it is the default."""
    text = '[[asterisk]]\nname = "a"\n[[asterisk]]\nname = "b"\n[firewall]\nlog = true\nscope = "sip"\n'
    values = read(tmp_path, text, FIREWALL__SCOPE="all", ASTERISK__1__AMI__PORT="5039")

    assert values["asterisk[1].name"] == Value(("asterisk", 1, "name"), "b", ValueOrigin.FILE, line=4)
    assert values["firewall.log"] == Value(("firewall", "log"), value=True, origin=ValueOrigin.FILE, line=6)
    assert values["firewall.scope"] == Value(
        ("firewall", "scope"), "all", ValueOrigin.ENVIRONMENT, variable="RINGFENCE_FIREWALL__SCOPE"
    )
    assert values["asterisk[1].ami.port"].variable == "RINGFENCE_ASTERISK__1__AMI__PORT"
    assert values["asterisk[0].ami.port"].origin is ValueOrigin.DEFAULT


def test_secrets_are_masked(tmp_path: Path) -> None:
    """A secret of the file or of a variable is shown as a mask, and one that is overridden not at all."""
    text = f'[[asterisk]]\nami.secret = "{CLEAR}"\n'
    secret, file = "asterisk[0].ami.secret", "asterisk[0].ami.secret_file"

    assert read(tmp_path, text)[secret] == Value(
        ("asterisk", 0, "ami", "secret"), MASK, ValueOrigin.FILE, line=2
    )
    assert read(tmp_path, "", ASTERISK__AMI__SECRET=CLEAR)[secret].value == MASK
    by_file = read(tmp_path, text, ASTERISK__AMI__SECRET_FILE="/nonexistent")
    assert (by_file[secret].value, by_file[secret].origin) == (None, ValueOrigin.DEFAULT)
    assert by_file[file].value == "/nonexistent"


def test_mistakes_are_raised(tmp_path: Path) -> None:
    """An invalid configuration has no effective values."""
    with pytest.raises(ConfigError, match=r"store\.path: must be an absolute path"):
        read(tmp_path, "[store]\npath = 'a'\n")


def test_the_key_in_the_url_of_a_feed_is_masked(tmp_path: Path) -> None:
    """The URL of a feed is shown without its query, which has the publisher's key."""
    found = read(tmp_path, "[[feeds]]\nname = 'one'\nurl = 'https://x/list?key=abc'\n")

    assert found["feeds[0].url"].value == "https://x/list?***"
