"""The configuration: every default, every kind of fault, and all faults in one report."""

import tomllib
from collections.abc import Mapping
from datetime import date
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.support.firewalls import firewall
from tests.support.tables import with_tables
from tests.support.unprivileged import unprivileged

from ringfence.config.converters import (
    MAX_SECRET_BYTES,
    BackendName,
    Burst,
    Count,
    Duration,
    FriendCount,
    HostName,
    Interface,
    Ladder,
    LevelName,
    Name,
    Paths,
    Pattern,
    PerMinute,
    Port,
    Rate,
    Region,
    ScopeName,
    SetSize,
    SipPort,
    Text,
)
from ringfence.config.loader import load, load_what_is_right, parse
from ringfence.config.schema import (
    AllowSettings,
    AmiSettings,
    AsteriskSettings,
    ClaimedSettings,
    ControlSettings,
    CustomSettings,
    DenySettings,
    LogSettings,
    RuleSettings,
    Settings,
    StoreSettings,
    default_rules,
)
from ringfence.detect.rules import RULES
from ringfence.errors import ConfigError
from ringfence.features.geo.settings import GeoSettings
from ringfence.features.limiter.settings import LimitSettings
from ringfence.features.ration.settings import RationSettings
from ringfence.firewall import BACKENDS
from ringfence.firewall.contract import BanAction
from ringfence.firewall.limits import LimitMode
from ringfence.values.secret import Secret

PROBLEMS = Path(__file__).with_name("problems.txt").read_text("utf-8").strip().split("\n\n")
"""Wrong configurations, each with its problems below it."""
CLEAR = "hunter2-correct-horse"
MISSING = (
    "secret: is missing; name a file that holds it with secret_file, "
    'or give the unit a credential "asterisk.secret"'
)
TEXT = "must be a text, not empty, without control characters"
TRUTH = "must be true or false"
DURATION = 'must be a duration such as "90s", "10m", "1h30m" or "7d", at most ten years'
COUNT = "must be a whole number from 1 to 1000"


ONE_OF_THE_BACKENDS = "must be one of " + ", ".join(f'"{name}"' for name in BACKENDS)
RULE_NAMES = ", ".join(rule.name for rule in RULES)
OTHER_RULES = {name: rule for name, rule in default_rules().items() if name != "guess"}


def read(text: str, *, environ: Mapping[str, str] | None = None, secrets: bool = False) -> Settings:
    """Parse a configuration's text, without the secrets unless requested."""
    return parse(tomllib.loads(text), "here", environ or {}, secrets=secrets)


def problems(text: str, *, environ: Mapping[str, str] | None = None, secrets: bool = False) -> list[str]:
    """Return the problems of a configuration."""
    with pytest.raises(ConfigError) as caught:
        read(text, environ=environ, secrets=secrets)
    assert CLEAR not in str(caught.value)
    return caught.value.problems


def pbx(text: str = "", name: str = "asterisk") -> str:
    """Return an [[asterisk]] table with these lines in its ami table."""
    return f'[[asterisk]]\nname = "{name}"\n[asterisk.ami]\n{text}\n'


def test_every_key_has_a_default_but_the_secret() -> None:
    """A file that contains only the secret results in these settings."""
    settings = read(f'[[asterisk]]\nami.secret = "{CLEAR}"', secrets=True)

    assert settings == with_tables(
        asterisk=(
            AsteriskSettings(
                name=Name("asterisk"),
                ami=AmiSettings(
                    enabled=True,
                    host=Text("127.0.0.1"),
                    port=Port(5038),
                    username=Text("ringfence"),
                    secret=Secret(CLEAR),
                    secret_file=None,
                    tls=False,
                    tls_ca=None,
                    tls_verify=True,
                ),
                logs=LogSettings(paths=None, timezone=None, journal=False, custom=()),
            ),
        ),
        firewall=firewall(
            backend=BackendName("auto"),
            scope=ScopeName("all"),
            sip_ports=None,
            interfaces=(),
            action=BanAction.DROP,
            log=False,
            max_bans=SetSize(262_144),
            limit=LimitSettings(mode=LimitMode.ENFORCE, rate=Rate(50), burst=Burst(200)),
            ration=RationSettings(
                mode=LimitMode.ENFORCE,
                rate=Rate(2),
                asking=LimitMode.ENFORCE,
                asking_rate=Rate(2),
            ),
        ),
        allow=AllowSettings(networks=(), hosts=(), countries=()),
        deny=DenySettings(networks=(), countries=()),
        geo=GeoSettings(database=None),
        rules={
            **OTHER_RULES,
            "guess": RuleSettings(
                enabled=True,
                attempts=Count(5),
                window=Duration(600.0),
                ban=Ladder((3_600.0, 21_600.0, 86_400.0, 604_800.0)),
                friends=FriendCount(180),
                scope=ScopeName("sip"),
            ),
        },
        store=StoreSettings(path=Path("/var/lib/ringfence/ringfence.db")),
        control=ControlSettings(socket=Path("/run/ringfence/control.sock")),
    )
    assert settings.rule_table() == RULES


def test_an_empty_file_lacks_the_secret_only() -> None:
    """An empty file is a complete configuration except for the secret."""
    assert read("") == Settings()
    assert problems("", secrets=True) == [f"asterisk[0].ami.{MISSING}"]


def test_every_key_can_be_set() -> None:
    """For every key, the settings have the value that the file contains."""
    settings = read(
        f"""
        [[asterisk]]
        name = "office"
        [asterisk.ami]
        host = "pbx.example"
        port = 5039
        username = "guard"
        secret = "{CLEAR}"
        tls = true
        tls_verify = false
        [asterisk.logs]
        paths = ["/srv/pbx/messages", "/srv/pbx/security"]
        timezone = "UTC"
        journal = true
        [[asterisk.logs.custom]]
        name = "guests"
        pattern = "guest from {{address}} refused"
        [[asterisk.logs.custom]]
        name = "agi"
        level = "WARNING"
        file = "res_agi.c"
        pattern = "{{any}}bad PIN from {{address}}"
        [[asterisk]]
        name = "branch"
        proxies = ["127.0.0.1", "fd00::/126"]
        guests = true
        ami.secret = "another"
        ami.tls_ca = "/nonexistent/unused-without-tls.pem"
        [firewall]
        backend = "memory"
        scope = "sip"
        sip_ports = ["5060/udp", "5061/tcp", "5080"]
        interfaces = ["eth0", "wg-office.7"]
        action = "admin-prohibited"
        log = true
        max_bans = 1048576
        [firewall.limit]
        mode = "enforce"
        rate = 60
        burst = 300
        [firewall.ration]
        mode = "enforce"
        rate = 2
        asking = "observe"
        asking_rate = 3
        [allow]
        networks = ["198.51.100.7", "2001:db8::/32", "::ffff:192.0.2.0/120"]
        hosts = ["SIP.carrier.example.", "xn--bcher-kva.example"]
        countries = ["de", "AS64496"]
        [deny]
        networks = ["203.0.113.0/24"]
        countries = ["XX"]
        [geo]
        database = "/srv/geo.mmdb"
        [rules.guess]
        enabled = false
        attempts = 3
        window = "90s"
        ban = ["1h", "2w"]
        friends = 0
        scope = "sip"
        [rules.decoy]
        accounts = ["100", "admin"]
        [rules.prefix]
        addresses = 4
        [rules.distributed]
        strangers = 3
        [claimed]
        ban = ["1m", "2m"]
        per_minute = 10
        [store]
        path = "/srv/ringfence.db"
        [control]
        socket = "/srv/ringfence.sock"
        """,
        secrets=True,
    )

    assert settings == with_tables(
        asterisk=(
            AsteriskSettings(
                name=Name("office"),
                ami=AmiSettings(
                    host=Text("pbx.example"),
                    port=Port(5039),
                    username=Text("guard"),
                    secret=Secret(CLEAR),
                    tls=True,
                    tls_verify=False,
                ),
                logs=LogSettings(
                    paths=(Path("/srv/pbx/messages"), Path("/srv/pbx/security")),
                    timezone=ZoneInfo("UTC"),
                    journal=True,
                    custom=(
                        CustomSettings(name=Name("guests"), pattern=Pattern("guest from {address} refused")),
                        CustomSettings(
                            name=Name("agi"),
                            level=LevelName("WARNING"),
                            file=Text("res_agi.c"),
                            pattern=Pattern("{any}bad PIN from {address}"),
                        ),
                    ),
                ),
            ),
            AsteriskSettings(
                name=Name("branch"),
                proxies=(ip_network("127.0.0.1"), ip_network("fd00::/126")),
                guests=True,
                ami=AmiSettings(secret=Secret("another"), tls_ca=Path("/nonexistent/unused-without-tls.pem")),
            ),
        ),
        firewall=firewall(
            backend=BackendName("memory"),
            scope=ScopeName("sip"),
            sip_ports=(SipPort(5060, tcp=False), SipPort(5061, udp=False), SipPort(5080)),
            interfaces=(Interface("eth0"), Interface("wg-office.7")),
            action=BanAction.ADMIN_PROHIBITED,
            log=True,
            max_bans=SetSize(1_048_576),
            limit=LimitSettings(LimitMode.ENFORCE, Rate(60), Burst(300)),
            ration=RationSettings(LimitMode.ENFORCE, Rate(2), LimitMode.OBSERVE, Rate(3)),
        ),
        allow=AllowSettings(
            networks=(ip_network("198.51.100.7"), ip_network("2001:db8::/32"), ip_network("192.0.2.0/24")),
            hosts=(HostName("sip.carrier.example"), HostName("xn--bcher-kva.example")),
            countries=(Region("DE"), Region("AS64496")),
        ),
        deny=DenySettings(networks=(ip_network("203.0.113.0/24"),), countries=(Region("XX"),)),
        geo=GeoSettings(database=Paths((Path("/srv/geo.mmdb"),))),
        claimed=ClaimedSettings(Ladder((60.0, 120.0)), PerMinute(10)),
        rules={
            **OTHER_RULES,
            "guess": RuleSettings(
                enabled=False,
                attempts=Count(3),
                window=Duration(90.0),
                ban=Ladder((3_600.0, 1_209_600.0)),
                friends=FriendCount(0),
                scope=ScopeName("sip"),
            ),
            "decoy": evolve(OTHER_RULES["decoy"], accounts=(Text("100"), Text("admin"))),
            "prefix": evolve(OTHER_RULES["prefix"], addresses=Count(4)),
            "distributed": evolve(OTHER_RULES["distributed"], strangers=Count(3)),
        },
        store=StoreSettings(path=Path("/srv/ringfence.db")),
        control=ControlSettings(socket=Path("/srv/ringfence.sock")),
    )
    rule = settings.rule_table()[0]
    assert (rule.attempts, rule.window, rule.ban) == (3, 90.0, (3_600.0, 1_209_600.0))


@pytest.mark.parametrize(
    ("logs", "heard", "wanted"),
    [
        ("", None, True),
        ("logs.paths = []", (), False),
        ("logs.paths = []\nlogs.journal = true", (), True),
        ("logs.paths = ['/a']", (Path("/a"),), True),
    ],
)
def test_logs_are_found_for_one_asterisk_alone(
    logs: str,
    heard: tuple[Path, ...] | None,
    wanted: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """Without paths one log is found and counts as a source; with a second PBX no log is searched for."""
    alone = "wire.enabled = false"
    one = read(f"[[asterisk]]\n{alone}\n{logs}")
    two = read(f"[[asterisk]]\n{alone}\n{logs}\n[[asterisk]]\nname = 'branch'\n{alone}")

    assert [pbx.logs.paths for pbx in one.asterisk_with_logs()] == [heard]
    assert [pbx.logs.paths for pbx in two.asterisk_with_logs()] == [heard or (), ()]
    assert one.several_sources() == ({"asterisk"} if wanted else set())
    assert "branch" not in two.several_sources()


def test_without_ami_no_secret_is_needed() -> None:
    """Without AMI a log must be a source; a PBX without a source is a fault."""
    settings = parse({"asterisk": [{"ami": {"enabled": False}}]}, "x", {})
    assert settings.asterisk[0].ami.secret is None

    with pytest.raises(ConfigError) as refused:
        parse({"asterisk": [{"ami": {"enabled": False}, "logs": {"paths": []}}]}, "x", {})
    assert refused.value.problems == ["asterisk[0]: it has no source; fix: ami.enabled = true, or logs.paths"]


def test_the_wire_is_one_of_several_sources() -> None:
    """One host has one wire, and it is a source for every PBX."""
    on = read("[[asterisk]]\nlogs.paths = []\nwire.enabled = false\n[[asterisk]]\nname = 'branch'")

    assert on.wire
    assert on.several_sources() == {"asterisk", "branch"}


def test_a_database_may_be_several() -> None:
    """The database is one path or a list of paths."""
    one, two = Path("/srv/one.mmdb"), Path("/srv/two.mmdb")

    assert read(f"geo.database = '{one}'").of(GeoSettings).database == (one,)
    assert read(f"geo.database = ['{one}', '{two}']").of(GeoSettings).database == (one, two)
    assert read("geo.database = []").of(GeoSettings).database == ()


def test_a_rule_keeps_what_it_does_not_set() -> None:
    """A rule's other keys keep their defaults, and a single length is a ladder of one."""
    rule = read('[rules.guess]\nban = "2h"').rule_table()[0]

    assert (rule.attempts, rule.window, rule.ban) == (5, 600.0, (7_200.0,))


@pytest.mark.parametrize("block", PROBLEMS)
def test_each_fault_has_its_line(block: str) -> None:
    """Unknown keys, wrong types and impossible values are reported by key path, with exactly this text."""
    text, *expected = block.split("\n=> ")
    assert problems(text) == expected


def test_all_faults_come_in_one_report(tmp_path: Path) -> None:
    """A file with every kind of fault gets all of them in one report, secrets and conflicts included."""
    text = f"""
        colour = 1
        [[asterisk]]
        name = "a"
        ami.port = 0
        ami.user = "x"
        [[asterisk]]
        name = "a"
        ami.secret = "{CLEAR}"
        ami.secret_file = "/somewhere"
        ami.tls = "yes"
        [[asterisk]]
        name = "b"
        ami.secret_file = "{tmp_path}/absent"
        ami.tls = true
        ami.tls_ca = "{tmp_path}/absent.pem"
        ami.host = ""
        [[asterisk]]
        name = "c/d"
        ami.secret = 5
        [firewall]
        backend = "pf"
        [allow]
        networks = "192.0.2.1"
        [rules.guess]
        attempts = -1
        window = "soon"
        [rules.guest]
        [store]
        path = 7
    """

    assert sorted(problems(text, secrets=True)) == sorted(
        [
            "colour: unknown key",
            "asterisk[0].ami.port: must be a whole number from 1 to 65535",
            "asterisk[0].ami.user: unknown key; is username meant?",
            "asterisk[0].ami." + MISSING.replace("asterisk.secret", "a.secret"),
            'asterisk[1].name: "a" is taken; give each [[asterisk]] a name of its own',
            "asterisk[1].ami.secret: is given twice, here and by secret_file; keep one",
            f"asterisk[1].ami.tls: {TRUTH}",
            f"asterisk[2].ami.secret_file: {tmp_path}/absent cannot be read: No such file or directory",
            "asterisk[2].ami.tls_ca: cannot be used: [Errno 2] No such file or directory",
            f"asterisk[2].ami.host: {TEXT}",
            "asterisk[3].name: must be a name of letters, digits, '.', '_' and '-'",
            f"asterisk[3].ami.secret: {TEXT}",
            "firewall.backend: " + ONE_OF_THE_BACKENDS,
            "allow.networks: must be a list",
            f"rules.guess.attempts: {COUNT}",
            f"rules.guess.window: {DURATION}",
            "rules.guest: no such rule; there are: " + RULE_NAMES,
            f"store.path: {TEXT}",
        ]
    )


# -- secrets ----------------------------------------------------------------------------------------------


def test_a_secret_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    """The end of the line is not part of the secret; spaces within the line are."""
    file = tmp_path / "secret"
    for written, secret in [
        (f"{CLEAR}\n", CLEAR),
        (f"{CLEAR}\r\n", CLEAR),
        (CLEAR, CLEAR),
        (" a b \n", " a b "),
        ("schlüssel\n", "schlüssel"),
        ("x" * MAX_SECRET_BYTES + "\r\n", "x" * MAX_SECRET_BYTES),
    ]:
        file.write_bytes(written.encode())
        settings = read(pbx(f'secret_file = "{file}"'), secrets=True)
        assert settings.asterisk[0].ami.secret == Secret(secret)


def test_a_secret_may_be_a_credential(tmp_path: Path) -> None:
    """Without secret and secret_file, systemd's credential with the Asterisk's name is read."""
    (tmp_path / "office.secret").write_text(f"{CLEAR}\n", "utf-8")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}

    assert read(pbx(name="office"), environ=environ, secrets=True).asterisk[0].ami.secret == Secret(CLEAR)
    assert problems(pbx(name="branch"), environ=environ, secrets=True) == [
        "asterisk[0].ami." + MISSING.replace("asterisk.secret", "branch.secret")
    ]


def test_an_inline_secret_goes_before_the_credential(tmp_path: Path) -> None:
    """A secret in the configuration file takes precedence over a credential."""
    (tmp_path / "asterisk.secret").write_text("another", "utf-8")
    settings = read(
        pbx(f'secret = "{CLEAR}"'), environ={"CREDENTIALS_DIRECTORY": str(tmp_path)}, secrets=True
    )

    assert settings.asterisk[0].ami.secret == Secret(CLEAR)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", f": {TEXT}"),
        (b"\n\n", f": {TEXT}"),
        (f"{CLEAR}\nAction: x".encode(), f": {TEXT}"),
        (f"{CLEAR}\0".encode(), f": {TEXT}"),
        (f"{CLEAR}\x9b".encode(), f": {TEXT}"),
        (b"\xff" + CLEAR.encode(), " cannot be read: it is not UTF-8"),
        (b"x" * (MAX_SECRET_BYTES + 1), f" holds more than {MAX_SECRET_BYTES} bytes"),
        (b"x" * MAX_SECRET_BYTES + b"\n\n\n\nmore", f" holds more than {MAX_SECRET_BYTES} bytes"),
        (b"a" + "é".encode() * MAX_SECRET_BYTES, f" holds more than {MAX_SECRET_BYTES} bytes"),
        (b"a" * (MAX_SECRET_BYTES * 9), f" holds more than {MAX_SECRET_BYTES} bytes"),
    ],
)
def test_a_secret_file_that_holds_no_secret(tmp_path: Path, content: bytes, reason: str) -> None:
    """An empty, too long, multi-line or binary secret is refused, and is never truncated or shown."""
    file = tmp_path / "secret"
    file.write_bytes(content)

    assert problems(pbx(f'secret_file = "{file}"'), secrets=True) == [
        f"asterisk[0].ami.secret_file: {file}{reason}"
    ]


def test_a_secret_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file or a folder is reported with the system's own reason."""
    assert problems(pbx(f'secret_file = "{tmp_path}"'), secrets=True) == [
        f"asterisk[0].ami.secret_file: {tmp_path} cannot be read: Is a directory"
    ]
    (tmp_path / "asterisk.secret").mkdir()
    assert problems("", environ={"CREDENTIALS_DIRECTORY": str(tmp_path)}, secrets=True) == [
        f"asterisk[0].ami.secret: {tmp_path}/asterisk.secret cannot be read: Is a directory"
    ]


def test_a_command_that_needs_no_secret_misses_none() -> None:
    """Without secrets neither a secret file, which may be forbidden, nor a credential is read."""
    settings = read(pbx('secret_file = "/nonexistent/secret"'))

    assert settings.asterisk[0].ami.secret is None
    assert settings.asterisk[0].ami.secret_file == Path("/nonexistent/secret")


def test_no_secret_is_in_a_report_of_problems() -> None:
    """A report of problems never contains an inline secret, whatever other faults the table has."""
    text = (
        f'secret = "{CLEAR}"\nport = "{CLEAR}"\ntls = "{CLEAR}"\nhost = ["{CLEAR}"]\nsecret_file = "{CLEAR}"'
    )

    assert len(problems(pbx(text), secrets=True)) == 4


def test_tls_ca_must_be_certificates(tmp_path: Path) -> None:
    """If TLS is on, a CA file that is missing or contains no certificate is reported."""
    file = tmp_path / "ca.pem"
    file.write_text("no certificate", "utf-8")
    lines = problems(pbx(f'tls = true\ntls_ca = "{file}"'))
    lines += problems(pbx(f'tls = true\ntls_ca = "{tmp_path}/absent"'))

    assert len(lines) == 2
    assert all(line.startswith("asterisk[0].ami.tls_ca: cannot be used: ") for line in lines)


# -- the file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a = ", "is not TOML: Invalid value (at end of document)"),
        (b"[a]\n[a]", "is not TOML: there are two tables [a]; write both in one (at line 2, column 3)"),
        (b"[a.b]\n[a.b]", "is not TOML: there are two tables [a.b]; write both in one (at line 2, column 5)"),
        (b"\xff", "is not UTF-8 (at line 1); fix: save it as UTF-8"),
        (b"a = 1\n# B\xfcro\n", "is not UTF-8 (at line 2); fix: save it as UTF-8"),
        (b"\xef\xbb\xbfa = 1", "begins with a byte order mark, as Windows writes it; fix: save it as UTF"),
        (b".".join([b"a"] * 60_000) + b" = 1", "is not TOML: a key has more than 100 parts"),
        (b"[" + b" . ".join([b"'a b'"] * 102) + b"]", "is not TOML: a key has more than 100 parts"),
        (b"a = {" + b".".join([b'"a.b"'] * 102) + b" = 1}", "is not TOML: a key has more than 100 parts"),
        (b"a = " + b"1" * 5_000, "is not TOML: Exceeds the limit"),
        (b"a = " + b"[" * 50_000, "is not TOML: "),
    ],
)
def test_what_is_not_toml(tmp_path: Path, content: bytes, reason: str) -> None:
    """A file that is not TOML is reported as one problem, whatever it contains."""
    file = tmp_path / "ringfence.toml"
    file.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        load(file, {})

    [problem] = caught.value.problems
    assert caught.value.where == str(file)
    assert problem.startswith(reason)


def test_a_file_that_others_may_read_names_them() -> None:
    """If the configuration is not readable, the problem names the users that can read it."""
    with unprivileged() as folder:
        file = folder / "ringfence.toml"
        file.touch(mode=0)
        with pytest.raises(ConfigError) as refused:
            load(file, {})

    assert refused.value.problems == [
        "cannot be read: Permission denied; fix: be root, or in the group ringfence"
    ]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file is reported with the fix, and any other error with the system's reason."""
    with pytest.raises(ConfigError) as missing:
        load(tmp_path / "absent.toml", {})
    with pytest.raises(ConfigError) as folder:
        load(tmp_path, {})

    assert missing.value.problems == ["there is no such file; fix: copy examples/minimal.toml there"]
    assert folder.value.problems == ["cannot be read: Is a directory"]


def test_a_file_is_read(tmp_path: Path) -> None:
    """The settings of a file are those of its text."""
    file = tmp_path / "ringfence.toml"
    file.write_text(pbx(f'secret = "{CLEAR}"', name="office"), "utf-8")

    assert load(file, {}) == read(file.read_text("utf-8"), secrets=True)


KEYS = [
    "asterisk",
    "ami",
    "name",
    "host",
    "port",
    "username",
    "secret",
    "secret_file",
    "tls",
    "tls_ca",
    "tls_verify",
    "logs",
    "paths",
    "journal",
    "custom",
    "pattern",
    "firewall",
    "backend",
    "allow",
    "networks",
    "hosts",
    "countries",
    "deny",
    "geo",
    "database",
    "scope",
    "sip_ports",
    "interfaces",
    "action",
    "limit",
    "mode",
    "rate",
    "rules",
    "guess",
    "attempts",
    "window",
    "ban",
    "store",
    "path",
    "control",
    "socket",
    "other",
]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.just(date(2026, 1, 1))
    | st.sampled_from(
        ["1h", "192.0.2.0/24", "/x", "auto", "DE", "5060/udp", "a.example", "/", "2001:db8::%1", "\0"]
    )
)
TREES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(KEYS), below, max_size=6),
    max_leaves=12,
)


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(KEYS), TREES, max_size=6), st.booleans())
def test_no_tree_raises_anything_else(tree: dict[str, Any], secrets: bool) -> None:  # noqa: FBT001 - drawn
    """Any TOML tree results in settings, or in a ConfigError whose lines begin with a key path."""
    try:
        settings = parse(tree, "here", {}, secrets=secrets)
    except ConfigError as error:
        settings, lines = Settings(), error.problems
    else:
        lines = ["asterisk: none"]
    assert isinstance(settings, Settings)
    assert {line.split(":")[0].split(".")[0].split("[")[0] for line in lines} <= {*KEYS}
    assert lines


def test_all_mistakes_are_in_one_report(tmp_path: Path) -> None:
    """One report has unknown keys, wrong values, conflicting tables, and unreadable secrets."""
    secret = tmp_path / "absent"
    text = f"""
colour = 1
[rules.guess]
attempts = 0
attempt = 3
[deny]
countries = ["DE"]
[[asterisk]]
name = "one"
nmae = "one"
[asterisk.ami]
port = 0
secret_file = "{secret}"
[[asterisk]]
name = "two"
[asterisk.ami]
enabled = false
"""

    assert problems(text, secrets=True) == [
        "asterisk[0].ami.port: must be a whole number from 1 to 65535",
        "asterisk[0].nmae: unknown key; is name meant?",
        "rules.guess.attempt: unknown key; is attempts meant?",
        "rules.guess.attempts: must be a whole number from 1 to 1000",
        "colour: unknown key",
        "asterisk[1]: it has no source; fix: ami.enabled = true, or logs.paths",
        "deny.countries: need a database of networks; fix: name one in [geo] database",
        f"asterisk[0].ami.secret_file: {secret} cannot be read: No such file or directory",
    ]


def test_a_wrong_geo_database_is_one_mistake() -> None:
    """If the path of the database is wrong, the countries that need it are not reported too."""
    assert problems('[geo]\ndatabase = "x"\n[deny]\ncountries = ["DE"]') == [
        "geo.database: must be an absolute path"
    ]


def test_what_is_right_in_a_table_counts(tmp_path: Path) -> None:
    """For a command that must always work, every correct value counts, also beside wrong ones."""
    path = tmp_path / "ringfence.toml"
    path.write_text(
        'colour = 1\n[firewall]\nbackend = "nftables"\nscope = 1\n[store]\npath = "/x"\n', "utf-8"
    )
    settings = load_what_is_right(path)

    assert (settings.firewall.backend, settings.firewall.scope) == ("nftables", "all")
    assert settings.store.path == Path("/x")
