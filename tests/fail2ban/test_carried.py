"""From jails to ringfence's settings: what is carried, and what is said of the rest."""

from collections.abc import Mapping
from ipaddress import ip_network

import pytest

from ringfence.fail2ban.carried import ALLOW, GUESS, LOGS, Carried, bantime_of, carried
from ringfence.fail2ban.jails import Jail
from ringfence.values import MAX_DURATION

USUAL = {"maxretry": "5", "findtime": "10m", "bantime": "1h"}


def jail(options: Mapping[str, str], name: str = "asterisk", faults: Mapping[str, str] | None = None) -> Jail:
    """Make a jail with these options beside the usual numbers."""
    return Jail(name, {**USUAL, **options}, faults or {})


def of(*options: Mapping[str, str], files: Mapping[str, list[str]] | None = None) -> Carried:
    """Carry over jails with these options, on a machine with these files."""
    there = files or {}
    jails = [jail(each, f"jail{number}") for number, each in enumerate(options)]
    return carried(jails, lambda path: there.get(path, []))


def notes(found: Carried, table: str, of_usual: Carried | None = None) -> list[str]:
    """Give what is said of a table, beyond what is said of the usual jail."""
    usual = (of_usual or of({})).notes.of(table)
    return [note for note in found.notes.of(table) if note not in usual]


def test_the_numbers_are_carried() -> None:
    """How many within which time, and how long."""
    found = of({"maxretry": "7", "findtime": "1d12h", "bantime": "90m"})

    assert (found.attempts, found.window, found.ban) == (7, 129_600.0, (5_400.0,))
    assert "fail2ban counts lines" in found.notes.of(GUESS)[0]


@pytest.mark.parametrize(
    ("options", "attempts", "window", "said"),
    [
        (
            {"maxretry": "1"},
            1,
            600,
            "attempts = 1 leaves nobody room to mistype a password; 5 is ringfence's own",
        ),
        (
            {"maxretry": "2"},
            2,
            600,
            "attempts = 2 leaves nobody room to mistype a password; 5 is ringfence's own",
        ),
        ({"maxretry": "9999"}, 1000, 600, "maxretry 9999: must be from 1 to 1000"),
        ({"maxretry": "5 # five"}, None, 600, "maxretry 5 # five: no number; ringfence's own holds"),
        ({"maxretry": ""}, None, 600, "maxretry: no jail says it; ringfence's own holds"),
        ({"findtime": ""}, 5, None, "findtime: no jail says it; ringfence's own holds"),
        ({"findtime": "x"}, 5, None, "findtime x: not a time; ringfence's own holds"),
        ({"findtime": "0"}, 5, 1, "findtime 0: must be above 0 and at most ten years"),
        ({"findtime": "-5"}, 5, 1, "findtime -5: must be above 0 and at most ten years"),
        ({"findtime": "99y"}, 5, MAX_DURATION, "findtime 99y: must be above 0 and at most ten years"),
    ],
)
def test_numbers_that_cannot_be_are_told(
    options: Mapping[str, str], attempts: int | None, window: float | None, said: str
) -> None:
    """The nearest that can be, or ringfence's own, and a note."""
    found = of(options)

    assert (found.attempts, found.window) == (attempts, window)
    assert notes(found, GUESS) == [said]


def test_who_is_ignored_is_allowed() -> None:
    """Addresses, networks, netmasks and addresses within a network, by space, comma and line, each once."""
    found = of(
        {"ignoreip": "127.0.0.1/8 ::1,192.0.2.7\n10.1.2.3/255.255.0.0, ::ffff:198.51.100.1 192.0.2.7/32"}
    )

    assert [str(network) for network in found.networks] == [
        "127.0.0.0/8",
        "::1/128",
        "192.0.2.7/32",
        "10.1.0.0/16",
        "198.51.100.1/32",
    ]
    assert notes(found, ALLOW) == []


@pytest.mark.parametrize(
    "word", ["pbx.example.org", "fe80::1%eth0", "file:/etc/friends", "192.0.2.300", "\x1b[2J"]
)
def test_what_is_no_address_is_told_and_not_resolved(word: str) -> None:
    """A name is never asked of anybody: it stands in a note, as a terminal may show it."""
    found = of({"ignoreip": f"192.0.2.1 {word}"})

    [note] = notes(found, ALLOW)
    assert note.isprintable()
    assert note.endswith("write its addresses, or a name into hosts")
    assert [str(network) for network in found.networks] == ["192.0.2.1/32"]


def test_to_allow_everybody_is_told() -> None:
    """It is carried over, with what it means."""
    found = of({"ignoreip": "0.0.0.0/0"})

    assert found.networks == (ip_network("0.0.0.0/0"),)
    assert notes(found, ALLOW) == ["0.0.0.0/0 allows everybody: nobody at all is banned"]


def test_logs_are_carried() -> None:
    """A line each, with or without where to begin; a pattern becomes the logs that it stands for."""
    files = {
        "/log/a": ["/log/a"],
        "/log/b c": ["/log/b c"],
        "/log/*": ["/log/full", "/log/full.1", "/log/full.2.gz", "/log/full-20260101", "/log/x.1"],
    }

    found = of(
        {"logpath": "/log/a tail\n/log/b c\n/log/new head\n/log/*\nlog/relative\n\n/log/\x07"}, files=files
    )

    assert found.paths == ("/log/a", "/log/b c", "/log/new", "/log/full", "/log/x.1")
    assert found.notes.of(LOGS) == [
        "/log/new is not there now; it is read when it comes",
        "logpath /log/*: what it stands for now (2) is read, and nothing that comes later",
        "logpath log/relative: not an absolute path",
        "logpath /log/\\x07: not an absolute path",
    ]


def test_a_path_that_cannot_be_written_is_told() -> None:
    """A file with a name that is no text is left out, with a note."""
    found = of({"logpath": "/log/*"}, files={"/log/*": ["/log/\udcff", "/log/a\nb"]})

    assert found.paths == ()
    assert len(notes(found, LOGS)) == 3


def test_the_journal_takes_the_place_of_logs() -> None:
    """Where fail2ban read the journal, it did not read logs."""
    found = of({"backend": "systemd[journalflags=1]", "logpath": "/log/a"})

    assert (found.journal, found.paths) == (True, ())
    assert not of({"backend": "auto"}).journal


@pytest.mark.parametrize(
    ("written", "zone"),
    [
        ("UTC", "UTC"),
        ("utc", "UTC"),
        ("+0200", "Etc/GMT-2"),
        ("UTC-03:00", "Etc/GMT+3"),
        ("GMT+5", "Etc/GMT-5"),
        ("+00", "UTC"),
    ],
)
def test_the_time_zone_is_carried(written: str, zone: str) -> None:
    """An offset becomes the zone of that offset, whose sign POSIX has the other way round."""
    found = of({"logtimezone": written})

    assert (found.timezone, notes(found, LOGS)) == (zone, [])


@pytest.mark.parametrize("written", ["+0530", "CET", "+15"])
def test_a_time_zone_without_a_name_is_told(written: str) -> None:
    """What is no whole hour, or an abbreviation, is not guessed at."""
    found = of({"logtimezone": written})

    assert found.timezone is None
    assert notes(found, LOGS) == [f'logtimezone {written}: name the zone, such as timezone = "Europe/Berlin"']


@pytest.mark.parametrize(
    ("options", "table", "said"),
    [
        (
            {"ignorecommand": "/usr/bin/ask <ip>"},
            ALLOW,
            "ignorecommand = /usr/bin/ask <ip>: no command is asked",
        ),
        ({"ignoreself": "false"}, ALLOW, "ignoreself = false: this host's own addresses are never banned"),
        (
            {"failregex": "^a <HOST>\n  ^b <HOST>"},
            LOGS,
            "failregex = ^a <HOST> ^b <HOST>: Asterisk's lines are known",
        ),
        ({"ignoreregex": "x" * 999}, LOGS, f"ignoreregex = {'x' * 200}…: no line is ignored by a pattern"),
        ({"datepattern": "%%Y"}, LOGS, "datepattern = %%Y: every date"),
        ({"journalmatch": "A=b"}, LOGS, "journalmatch = A=b: "),
        (
            {"port": "5060,5061"},
            GUESS,
            'port = 5060,5061: a ban covers every port, SSH too, unless scope = "sip" in [firewall]',
        ),
        ({"bantime.rndtime": "5m"}, GUESS, "bantime.rndtime = 5m: "),
        (
            {"action": 'iptables[a="b]c", d=e] sendmail-whois[dest="x y"]\n  nftables-allports'},
            GUESS,
            "action sendmail-whois: is not carried out; each ban is a line in ringfence's log",
        ),
    ],
)
def test_what_is_not_carried_over_is_told(options: Mapping[str, str], table: str, said: str) -> None:
    """One note each, with why, where it belongs."""
    [note] = notes(of(options), table)

    assert note.startswith(said)


def test_what_means_nothing_here_is_not_told() -> None:
    """What is empty, what is so anyway, and every firewall's action need no note."""
    options = {
        "ignorecommand": "",
        "ignoreself": "true",
        "port": "0:65535",
        "action": "ufw[x=y]\nfirewallcmd-ipset",
    }

    assert not any(notes(of(options), table) for table in (ALLOW, LOGS, GUESS))


def test_a_fault_in_an_option_is_told() -> None:
    """An option that could not be resolved, and would have been used, stands in a note; others do not."""
    broken = jail({}, faults={"ignoreip": "refers to %(x)s, which is nowhere", "mta": "refers to nothing"})

    found = carried([broken], lambda _: [])

    said = "ignoreip of jail asterisk refers to %(x)s, which is nowhere; not carried over"
    assert notes(found, ALLOW) == [said]
    assert not notes(found, GUESS)


def test_several_jails_are_one_configuration() -> None:
    """All lists together, the first one's numbers, and a note of the others'."""
    found = of(
        {"ignoreip": "192.0.2.1", "logpath": "/a", "maxretry": "6"},
        {
            "ignoreip": "192.0.2.1 192.0.2.2",
            "logpath": "/b",
            "maxretry": "20",
            "bantime": "1w",
            "backend": "systemd",
        },
        {"ignoreip": "192.0.2.3", "logpath": "/a\n/c", "maxretry": "6"},
    )

    assert found.jails == ("jail0", "jail1", "jail2")
    assert [str(network.network_address) for network in found.networks] == [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
    ]
    assert (found.paths, found.journal) == (("/a", "/c"), True)
    assert (found.attempts, found.window, found.ban) == (6, 600.0, (3600.0,))
    [note] = notes(found, GUESS)
    assert note.startswith(
        "of jail jail1 not carried over: maxretry = 20, bantime = 1w; jail jail0 comes first"
    )


@pytest.mark.parametrize(("text", "seconds"), [("1h", 3600), ("-1", -1), ("soon", None), ("", None)])
def test_how_long_a_jail_bans(text: str, seconds: float | None) -> None:
    """For a database that does not say it: the jail's bantime, where it has one."""
    assert bantime_of(jail({"bantime": text})) == seconds
