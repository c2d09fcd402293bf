"""Variables of the environment: their names, their values, and errors that name the variable."""

import tomllib
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.daemon import Guard

from ringfence.config.converters import Paths, SipPort
from ringfence.config.environment import PREFIX, key_of, overridden, variable_of
from ringfence.config.loader import load_what_is_right, parse
from ringfence.config.schema import Settings, keys_of
from ringfence.errors import ConfigError
from ringfence.features.geo.settings import GeoSettings
from ringfence.features.hep.settings import HepSettings
from ringfence.features.limiter.settings import LimitSettings
from ringfence.features.notify.hook_variables import HOOK_VARIABLES
from ringfence.values.secret import Secret

CLEAR = "hunter2-correct-horse"
UNCLOSED = "Unclosed array (at end of document)"
NETWORK = 'must be an address or a network such as "192.0.2.0/24"'


def read(text: str = "", *, secrets: bool = False, **variables: str) -> Settings:
    """Parse a configuration with these variables, named without their prefix."""
    return parse(tomllib.loads(text), "here", environ_of(variables), secrets=secrets)


def problems(text: str = "", *, secrets: bool = False, **variables: str) -> list[str]:
    """Return the problems of a configuration with these variables."""
    with pytest.raises(ConfigError) as caught:
        read(text, secrets=secrets, **variables)
    assert CLEAR not in str(caught.value)
    return caught.value.problems


def environ_of(variables: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with these variables, and with some of other programs."""
    ours = {PREFIX + name: value for name, value in variables.items()}
    return {"PATH": "/bin", "RINGFENCE": "1", "ringfence_a": "1", "RINGFENCE_CONFIG": "/x", **ours}


def test_every_key_has_one_variable() -> None:
    """The name of a key's variable leads back to the key, and no two keys share a name."""
    keys = {variable_of(key.path): key.path for key in keys_of()}

    assert len(keys) == len([*keys_of()])
    assert {name: found.path for name in keys if (found := key_of(name))} == keys


def test_a_variable_overrides_the_file() -> None:
    """Each kind of value can be set, whether the file has the key or not."""
    settings = read(
        '[firewall]\nscope = "all"\n[rules.guess]\nattempts = 7\n[allow]\nnetworks = ["192.0.2.1"]\n',
        FIREWALL__SCOPE="sip",
        FIREWALL__LOG="true",
        FIREWALL__SIP_PORTS="5060/udp, 5080",
        FIREWALL__LIMIT__RATE="60",
        ALLOW__NETWORKS="198.51.100.0/24,2001:db8::/32",
        GEO__DATABASE="/srv/a.mmdb, /srv/b.mmdb",
        RULES__GUESS__WINDOW="90s",
        RULES__GUESS__BAN="1h, 1d",
        ASTERISK__HEP__TLS_PORTS="5061, 5071",
        ASTERISK__LOGS__JOURNAL_USERS="1000, asterisk",
        RULES__DECOY__ACCOUNTS='["a,b", "c"]',
        ASTERISK__NAME="office",
        ASTERISK__AMI__TLS="false",
        ASTERISK__LOGS__PATHS="",
        ASTERISK__LOGS__TIMEZONE="UTC",
        STORE__PATH="/srv/bans.db",
    )

    assert (settings.firewall.scope, settings.firewall.log) == ("sip", True)
    assert settings.firewall.sip_ports == (SipPort(5060, tcp=False), SipPort(5080))
    assert settings.firewall.of(LimitSettings).rate == 60
    assert settings.allow.networks == (ip_network("198.51.100.0/24"), ip_network("2001:db8::/32"))
    assert settings.of(GeoSettings).database == Paths((Path("/srv/a.mmdb"), Path("/srv/b.mmdb")))
    assert settings.rules["guess"].attempts == 7
    assert (settings.rules["guess"].window, settings.rules["guess"].ban) == (90.0, (3_600.0, 86_400.0))
    assert settings.rules["decoy"].accounts == ("a,b", "c")
    assert settings.asterisk[0].of(HepSettings).tls_ports == (5061, 5071)
    assert settings.asterisk[0].logs.journal_users == ("1000", "asterisk")
    assert settings.asterisk[0].name == "office"
    assert settings.asterisk[0].logs.paths == ()
    assert settings.store.path == Path("/srv/bans.db")


def test_numbers_choose_repeated_tables() -> None:
    """Without a number the first table is meant; the number behind the last one adds a table."""
    two = '[[asterisk]]\nname = "a"\n[[asterisk]]\nname = "b"\n'
    settings = read(
        two,
        ASTERISK__AMI__PORT="5001",
        ASTERISK__1__AMI__PORT="5002",
        ASTERISK__2__NAME="c",
        ASTERISK__1__LOGS__CUSTOM__NAME="guests",
        ASTERISK__1__LOGS__CUSTOM__PATTERN="guest from {address} refused",
    )

    assert [(pbx.name, pbx.ami.port) for pbx in settings.asterisk] == [("a", 5001), ("b", 5002), ("c", 5038)]
    assert [one.name for one in settings.asterisk[1].logs.custom] == ["guests"]
    assert problems(two, ASTERISK__3__NAME="d", ASTERISK__0__NAME="e", ASTERISK__NAME="f") == [
        "RINGFENCE_ASTERISK__NAME: sets the same key as RINGFENCE_ASTERISK__0__NAME; fix: unset one of them",
        "RINGFENCE_ASTERISK__3__NAME: there is no asterisk[2]; fix: number the tables from 0, without a gap",
    ]


def test_errors_name_the_variable() -> None:
    """A refused value is reported with the variable that has it, together with the mistakes of the file."""
    assert problems(
        "[store]\npath = 1\n",
        ASTERISK__AMI__PORT="five",
        ASTERISK__AMI__ENABLED="yes",
        ALLOW__NETWORKS="192.0.2.1,pbx",
        DENY__NETWORKS="[1",
        RULES__GUESS__BAN="",
        FIREWALL__SCOPE="",
    ) == [
        f"RINGFENCE_DENY__NETWORKS: begins with [ and is not a list in TOML: {UNCLOSED}",
        "RINGFENCE_ASTERISK__AMI__ENABLED: must be true or false",
        "RINGFENCE_ASTERISK__AMI__PORT: must be a whole number from 1 to 65535",
        'RINGFENCE_FIREWALL__SCOPE: must be one of "all", "sip"',
        f"RINGFENCE_ALLOW__NETWORKS[1]: {NETWORK}: 'pbx' does not appear to be an IPv4 or IPv6 network",
        'RINGFENCE_RULES__GUESS__BAN: must be a duration such as "1h", or a list of them',
        "store.path: must be a text, not empty, without control characters",
    ]


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("FIREWALL_BACKEND", "write RINGFENCE_FIREWALL__BACKEND, or unset it"),
        ("ASTERISK__AMI__SECRETFILE", "write RINGFENCE_ASTERISK__AMI__SECRET_FILE, or unset it"),
        ("firewall__backend", "write RINGFENCE_FIREWALL__BACKEND, or unset it"),
        ("CONFG", "write RINGFENCE_CONFIG, or unset it"),
        ("RULES__GUESS", "write RINGFENCE_RULES__GUESS__BAN, or unset it"),
        ("PORT_5060_UDP", "unset it; docs/configuration.md has the rule for the names"),
        ("", "unset it; docs/configuration.md has the rule for the names"),
    ],
)
def test_an_unknown_variable_is_an_error(name: str, fix: str) -> None:
    """The error names the variable that is probably meant."""
    with pytest.raises(ConfigError) as caught:
        parse({}, "here", environ_of({name: "1"}), secrets=False)

    assert caught.value.problems == [f"RINGFENCE_{name}: sets no key of the configuration; fix: {fix}"]


def test_either_secret_overrides_both(tmp_path: Path) -> None:
    """A secret, or a file with it, from the environment overrides the secret of the file in both forms."""
    file = tmp_path / "secret"
    file.write_text(CLEAR, "utf-8")
    in_file = "[[asterisk]]\nami.secret_file = '/nonexistent'\n"

    assert read(in_file, secrets=True, ASTERISK__AMI__SECRET=CLEAR).asterisk[0].ami.secret == Secret(CLEAR)
    by_file = read("[[asterisk]]\nami.secret = 'x'", secrets=True, ASTERISK__AMI__SECRET_FILE=str(file))
    assert by_file.asterisk[0].ami.secret == Secret(CLEAR)
    assert problems(secrets=True, ASTERISK__AMI__SECRET=CLEAR, ASTERISK__AMI__SECRET_FILE=str(file)) == [
        "RINGFENCE_ASTERISK__AMI__SECRET: is given twice, here and by secret_file; keep one"
    ]
    assert problems(secrets=True, ASTERISK__AMI__SECRET_FILE="/nonexistent") == [
        "RINGFENCE_ASTERISK__AMI__SECRET_FILE: /nonexistent cannot be read: No such file or directory"
    ]


def test_a_file_with_something_else_in_place_of_a_table_is_reported() -> None:
    """A variable does not hide that the file has a wrong type."""
    assert problems("firewall = 3\nasterisk = [1]", FIREWALL__LOG="true", ASTERISK__NAME="a") == [
        "asterisk[0]: must be a table",
        "firewall: must be a table",
    ]


def test_a_lenient_reading_knows_the_variables(tmp_path: Path) -> None:
    """Commands that must work in any case find the socket that a variable names; wrong values are skipped."""
    file = tmp_path / "ringfence.toml"
    file.write_text("[control]\nsocket = '/file'\n", "utf-8")
    environ = environ_of({"CONTROL__SOCKET": "/variable", "FIREWALL__LOG": "maybe", "NONE": "1"})

    settings = load_what_is_right(file, environ)

    assert (settings.control.socket, settings.firewall.log) == (Path("/variable"), False)


@given(st.dictionaries(st.sampled_from([variable_of(key.path) for key in keys_of()]), st.text(), max_size=4))
def test_no_value_raises_anything_else(environ: dict[str, str]) -> None:
    """Whatever the variables contain, the result is settings, or problems that name a key or a variable."""
    with suppress(ConfigError):
        parse({}, "here", environ, secrets=False)


def test_the_document_is_not_changed() -> None:
    """The document of the caller keeps its values."""
    tree = {"firewall": {"log": False}}

    assert overridden(tree, {"RINGFENCE_FIREWALL__LOG": "true"}).tree == {"firewall": {"log": True}}
    assert tree == {"firewall": {"log": False}}


def test_the_daemon_and_its_commands_read_the_variables(tmp_path: Path) -> None:
    """A daemon that was started with variables runs with them, also after a reload."""
    environ = {"RINGFENCE_RULES__PROBE__ENABLED": "false"}
    with Guard(tmp_path, environ=environ) as guard:
        assert guard.status()["rules"]["off"] == ["probe"]
        guard.configure(rules={"slow": {"enabled": False}})
        assert guard.command("reload").returncode == 0
        assert sorted(guard.status()["rules"]["off"]) == ["probe", "slow"]

    wrong = Guard(tmp_path, environ={"RINGFENCE_RULES__PROBE__ENABLED": "no"})
    assert wrong.ended() == 2
    assert "RINGFENCE_RULES__PROBE__ENABLED: must be true or false" in wrong.log


# -- the variables of a hook: none of them sets a key


def test_no_variable_of_a_hook_sets_a_key() -> None:
    """A command of ringfence in a hook ignores them, and reports any other unknown variable."""
    assert all(name.startswith(PREFIX) and key_of(name) is None for name in HOOK_VARIABLES)
    assert overridden({}, dict.fromkeys(HOOK_VARIABLES, "x")).problems == ()
    assert len(overridden({}, {"RINGFENCE_EVENTS": "x"}).problems) == 1
