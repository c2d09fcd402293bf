"""fail2ban's jails, as a real fail2ban resolves them."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support.fail2ban import configure

from ringfence.errors import ConfigError
from ringfence.features.fail2ban.jails import DATABASE, Configuration, Jail, read_configuration

pytestmark = pytest.mark.usefixtures("fail2ban_client")

HARD = {
    "jail.local": """
[INCLUDES]
before = own/before.conf
after = own/after.conf

[DEFAULT]
office = 192.0.2.0/24
ignoreip = 127.0.0.1/8 ::1
    # a comment in between
    %(office)s, 198.51.100.7/32
findtime = 1d12h
logs = {folder}/logs
backend = auto

[sshd]
enabled = false
maxretry = 33

[asterisk]
enabled = true
maxretry = 1%(maxretry_tail)s
bantime = %(known/bantime)s
bantime.increment = yes
ignoreself = false
ignorecommand = /bin/false <ip>
logtimezone = UTC+0200
logpath = %(logs)s/%(__name__)s*.log
          %(logs)s/second tail

[pbx]
enabled = on
filter = asterisk[mode=normal]
maxretry = %(sshd/maxretry)s
port = 5060,5061
action = %(banaction)s[name=pbx, port="%(port)s"]
         sendmail-whois[name=pbx]
""",
    "own/before.conf": "[DEFAULT]\nmaxretry_tail = 7\nbantime = 2h\n[asterisk]\nbantime = 3h\n",
    "own/before.local": "[DEFAULT]\nmaxretry_tail = 8\n",
    "own/after.conf": "[pbx]\nlogpath = %(logs)s/after\n",
    "jail.d/20.conf": "[asterisk]\nbantime = 4h\nmaxretry = 2\n",
    "jail.d/10.local": "[DEFAULT]\noffice = 203.0.113.0/24\n",
}


def read(folder: Path, files: Mapping[str, str]) -> Configuration:
    """Write files beside Debian's, and read the configuration. Debian enables no jail in them."""
    configure(folder, files)
    return read_configuration(folder)


def one(folder: Path, text: str) -> Jail:
    """Return the only jail that this jail.local enables."""
    [found] = read(folder, {"jail.local": text}).jails
    return found


def test_a_difficult_configuration_is_resolved(tmp_path: Path) -> None:
    """Includes, overrides, references, comments and lists arrive as fail2ban's server would get them."""
    logs = tmp_path / "logs"
    logs.mkdir()
    for name in ("asterisk1.log", "asterisk2.log", "second", "after"):
        (logs / name).touch()
    files = {name: text.replace("{folder}", str(tmp_path)) for name, text in HARD.items()}

    found = read(tmp_path / "etc", files)
    asterisk, pbx = found.jails

    assert found.problems == ()
    assert (asterisk.name, pbx.name) == ("asterisk", "pbx")
    assert {name: asterisk.options[name] for name in ("maxretry", "findtime", "bantime", "backend")} == {
        "maxretry": "18",
        "findtime": "1d12h",
        "bantime": "3h",
        "backend": "auto",
    }
    assert (asterisk.options["bantime.increment"], asterisk.options["ignoreself"]) == ("True", "False")
    assert asterisk.options["ignorecommand"] == "/bin/false <ip>"
    assert asterisk.options["logtimezone"] == "UTC+0200"
    assert asterisk.ignored == ("127.0.0.1/8", "::1", "203.0.113.0/24", "198.51.100.7/32")
    assert sorted(asterisk.paths) == [
        f"{logs}/{name}" for name in ("asterisk1.log", "asterisk2.log", "second")
    ]
    assert (pbx.options["maxretry"], pbx.port) == ("33", "5060,5061")
    assert pbx.actions == ("iptables-multiport", "sendmail-whois")
    assert pbx.paths == (f"{logs}/after",)


# -- which jails, which database --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "guards"),
    [
        ("[asterisk]\nenabled=true\n", True),
        ("[sip]\nfilter=asterisk\nenabled=on\n", True),
        ("[asterisk-iptables]\nfilter=own\nenabled=true\n", True),
        ("[pbx]\nfilter=security\nenabled=true\n", True),
        ("[sshd]\nenabled=1\n", False),
        ("[gui]\nfilter=own\nenabled=true\n", False),
        ("[ami]\nfilter=manager\nenabled=true\n", True),
    ],
)
def test_the_jails_that_guard_asterisk_are_found(tmp_path: Path, text: str, *, guards: bool) -> None:
    """The name of a jail shows it, or a pattern for Asterisk's lines, also in a filter of one's own."""
    configure(
        tmp_path,
        {
            "jail.local": text,
            "filter.d/own.conf": "[Definition]\nfailregex = ^login failed from <HOST>$\n",
            "filter.d/manager.conf": "[Definition]\nfailregex = <HOST> failed to authenticate as\n",
            "filter.d/security.conf": '[Definition]\nfailregex = ^SecurityEvent="x",from="<HOST>"$\n',
        },
    )
    [jail] = read_configuration(tmp_path).jails

    assert jail.guards_asterisk is guards


def test_jails_that_are_named_are_taken(tmp_path: Path) -> None:
    """Named jails are returned in this order, once each; a disabled jail does not exist."""
    text = "[asterisk]\nenabled=true\n[sshd]\nenabled=true\n[vsftpd]\nenabled=false\n"
    found = read(tmp_path, {"jail.local": text})

    assert [jail.name for jail in found.chosen(["sshd", "asterisk", "sshd"])] == ["sshd", "asterisk"]
    with pytest.raises(ConfigError) as caught:
        found.chosen(["vsftpd", "sip\x1b"])
    assert caught.value.problems == [
        "no enabled jail is named vsftpd",
        "no enabled jail is named sip\\x1b",
        f"enabled jails: {', '.join(jail.name for jail in found.jails)}",
    ]


def test_jails_on_a_log_of_asterisk_are_known(tmp_path: Path) -> None:
    """A jail that is not recognised, but reads the same log or one in Asterisk's folder, is left out."""
    folder = tmp_path / "asterisk"
    folder.mkdir()
    for path in (tmp_path / "pbx", folder / "full", tmp_path / "auth"):
        path.touch()
    text = "[asterisk]\nenabled=true\nlogpath={0}/pbx\n" + "".join(
        f"[{name}]\nenabled=true\nfilter=own\nlogpath={{0}}/{log}\n"
        for name, log in (("one", "pbx"), ("two", "asterisk/full"), ("three", "auth"))
    )
    files = {
        "jail.local": text.format(tmp_path),
        "filter.d/own.conf": "[Definition]\nfailregex = ^login failed from <HOST>$\n",
    }
    found = read(tmp_path / "etc", files)

    assert [jail.name for jail in found.left_out(found.chosen([]))] == ["one", "two"]


def test_without_an_asterisk_jail_the_others_are_named(tmp_path: Path) -> None:
    """The error lists the enabled jails, and the messages of fail2ban."""
    text = "[sshd]\nenabled=true\n[asterisk]\nenabled=true\nfilter=gone\n"
    found = read(tmp_path, {"jail.local": text})

    with pytest.raises(ConfigError) as caught:
        found.chosen([])
    assert caught.value.problems[:2] == ["no enabled jail guards Asterisk", "enabled jails: sshd"]
    assert "Unable to read the filter 'gone'" in " ".join(caught.value.problems[2:])


@pytest.mark.parametrize(
    ("files", "database"),
    [
        ({}, DATABASE),
        ({"fail2ban.local": "[Definition]\ndbfile=/b\n"}, "/b"),
        ({"fail2ban.d/x.conf": "[Definition]\ndbfile = None\n"}, "None"),
    ],
)
def test_the_database_is_where_fail2ban_has_it(tmp_path: Path, files: dict[str, str], database: str) -> None:
    """The path is dbfile of fail2ban.conf and its overrides, else Debian's default."""
    assert read(tmp_path, {"jail.local": "[asterisk]\nenabled=true\n", **files}).database == database


# -- faults -----------------------------------------------------------------------------------------------


def test_options_that_fail2ban_does_not_understand(tmp_path: Path) -> None:
    """A jail without a usable number has none, as in fail2ban."""
    assert "maxretry" not in one(tmp_path, "[asterisk]\nenabled=true\nmaxretry=many\n").options


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[asterisk]\nenabled=true\nlogpath=%(nowhere)s\n", "contains an interpolation key 'nowhere'"),
        ("headless\n", "File contains no section headers"),
    ],
)
def test_a_configuration_that_fail2ban_refuses(tmp_path: Path, text: str, said: str) -> None:
    """The error has fail2ban's own reason."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, {"jail.local": text})

    assert said in " ".join(caught.value.problems)
    assert caught.value.problems[-1] == "fail2ban-client -d failed with code 255"


def test_no_folder(tmp_path: Path) -> None:
    """A missing folder, and a single file, are refused with the fix."""
    (tmp_path / "jail.local").touch()
    for path in (tmp_path / "missing", tmp_path / "jail.local"):
        with pytest.raises(ConfigError, match="is no folder; fix: give fail2ban's folder"):
            read_configuration(path)


def test_without_fail2ban(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error states where to run the command."""
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(ConfigError, match="fail2ban is not installed; fix: run this where"):
        read_configuration(tmp_path)


@pytest.mark.parametrize(
    "printed", ["hallo", "['set', ", "{1: 2}", "[" * 300, "['add', 3, 4]", "['set', 'asterisk']", "3"]
)
def test_lines_that_are_no_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str) -> None:
    """A fail2ban that prints something else: the commands are read, and what cannot be read is reported."""
    program = tmp_path / "fail2ban-client"
    lines = f"['add', 'asterisk', 'auto']\n{printed}\n['set', 'asterisk', 'maxretry', 3]\n"
    (tmp_path / "lines").write_text(lines, "utf-8")
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/lines\n", "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    found = read_configuration(tmp_path)

    assert [jail.options for jail in found.jails] == [{"backend": "auto", "maxretry": "3"}]
    assert all(problem.startswith("fail2ban-client printed what") for problem in found.problems)
