"""Conversion of jails to ringfence's settings, and notes on the rest."""

from collections.abc import Mapping

import pytest

from ringfence.clock import TEN_YEARS
from ringfence.features.fail2ban.carried import (
    ALLOW,
    GUESS,
    LOGS,
    MANAGER,
    ConvertedSettings,
    bantime_of,
    convert,
    document_of,
)
from ringfence.features.fail2ban.jails import Jail

USUAL = {"maxretry": "5", "findtime": "10m", "bantime": "1h"}


def jail(options: Mapping[str, str | tuple[str, ...]], name: str = "asterisk") -> Jail:
    """Return a jail with the usual numbers and these options; lists are those of ``Jail``."""
    single = {option: value for option, value in options.items() if isinstance(value, str)}
    port = single.pop("port", "")
    several = {option: value for option, value in options.items() if not isinstance(value, str)}
    return Jail(name, {**USUAL, **single}, port=port, **{"paths": ("/log/usual",), **several})


def converted(*options: Mapping[str, str | tuple[str, ...]]) -> ConvertedSettings:
    """Convert jails with these options."""
    return convert([jail(each, f"jail{number}") for number, each in enumerate(options)])


def notes(found: ConvertedSettings, table: str, of_usual: ConvertedSettings | None = None) -> list[str]:
    """Return the notes on a table, without those on the usual jail."""
    usual = (of_usual or converted({})).notes.on(table)
    return [note for note in found.notes.on(table) if note not in usual]


def test_numbers() -> None:
    """Attempts, window and ban length are converted."""
    found = converted({"maxretry": "7", "findtime": "1d12h", "bantime": "90m"})

    assert (found.guess.attempts, found.guess.window, found.guess.ban) == (7, 129_600.0, (5_400.0,))
    assert "fail2ban counts log lines" in found.notes.on(GUESS)[0]


@pytest.mark.parametrize(
    ("options", "attempts", "window", "said"),
    [
        (
            {"maxretry": "1"},
            1,
            600,
            "attempts = 1 leaves no room for mistyped passwords; ringfence's default is 5",
        ),
        (
            {"maxretry": "2"},
            2,
            600,
            "attempts = 2 leaves no room for mistyped passwords; ringfence's default is 5",
        ),
        ({"maxretry": "9999"}, 1000, 600, "maxretry 9999: must be from 1 to 1000"),
        ({"maxretry": "5 # five"}, None, 600, "maxretry 5 # five: not a number; ringfence's default applies"),
        ({"maxretry": ""}, None, 600, "maxretry: no jail sets it; ringfence's default applies"),
        ({"findtime": ""}, 5, None, "findtime: no jail sets it; ringfence's default applies"),
        ({"findtime": "x"}, 5, None, "findtime x: not a time; ringfence's default applies"),
        ({"findtime": "0"}, 5, 1, "findtime 0: must be above 0 and at most ten years"),
        ({"findtime": "-5"}, 5, 1, "findtime -5: must be above 0 and at most ten years"),
        ({"findtime": "99y"}, 5, TEN_YEARS, "findtime 99y: must be above 0 and at most ten years"),
    ],
)
def test_invalid_numbers(
    options: Mapping[str, str], attempts: int | None, window: float | None, said: str
) -> None:
    """An invalid number becomes the nearest valid one, or ringfence's default, with a note."""
    found = converted(options)

    assert (found.guess.attempts, found.guess.window) == (attempts, window)
    assert notes(found, GUESS) == [said]


def test_ignored_addresses_are_allowed() -> None:
    """Addresses, netmasks and networks are allowed once each."""
    ignored = (
        "127.0.0.1/8",
        "::1",
        "192.0.2.7",
        "10.1.2.3/255.255.0.0",
        "::ffff:198.51.100.1",
        "192.0.2.7/32",
    )
    found = converted({"ignored": ignored})

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
def test_names_are_not_resolved(word: str) -> None:
    """A name is not resolved: it is quoted in a note, with control characters escaped."""
    found = converted({"ignored": ("192.0.2.1", word)})

    [note] = notes(found, ALLOW)
    assert note.isprintable()
    assert note.endswith("list its addresses, or put the name into hosts")
    assert [str(network) for network in found.networks] == ["192.0.2.1/32"]


@pytest.mark.parametrize("word", ["0.0.0.0/0", "::/0", "::ffff:0:0/96"])
def test_the_whole_internet_is_left_out(word: str) -> None:
    """`config check` would refuse it in the configuration that is printed."""
    found = converted({"ignored": (word, "192.0.2.1")})

    assert [str(network) for network in found.networks] == ["192.0.2.1/32"]
    assert notes(found, ALLOW) == [
        f"ignoreip {word}: the whole internet cannot be allowed; list your networks"
    ]


def test_logs() -> None:
    """The logs that exist are read, without the rotated parts that a pattern matched as well."""
    logs = (
        "/log/a",
        "/log/b c",
        "/log/full",
        "/log/full.1",
        "/log/full.2.gz",
        "/log/full-20260101",
        "/log/full-2026-01-01",
        "/log/full.20260101-13",
        "/log/full.0.lz4",
        "/log/full_old",
        "/log/fuller",
        "/log/x.1",
        "/log/away-20260101",
    )

    found = converted({"paths": logs})

    assert found.paths == ("/log/a", "/log/b c", "/log/full", "/log/fuller", "/log/x.1", "/log/away")
    assert found.notes.on(LOGS) == ()


def test_a_jail_without_a_log() -> None:
    """If no log of the jail exists, ringfence's own way to find the log applies."""
    found = converted({"paths": ()})

    assert found.paths == ()
    assert notes(found, LOGS) == ["no log of jail jail0 exists now; ringfence finds its own channel"]


@pytest.mark.parametrize(
    ("options", "read"),
    [
        ({"paths": ("/log/a", "/log/full")}, "/log/a, /log/full"),
        ({"backend": "systemd"}, "the journal"),
        ({"paths": ()}, "nothing"),
    ],
)
def test_the_own_log_channel_stays_in_use(options: Mapping[str, str | tuple[str, ...]], read: str) -> None:
    """If ringfence's own channel exists, fail2ban's logs do not replace it, with a note."""
    found = convert([jail(options)], "/var/log/ringfence/ringfence")

    assert (found.paths, found.journal) == ((), False)
    [note] = found.notes.on(LOGS)
    assert note.startswith("/var/log/ringfence/ringfence is ringfence's own log channel.")
    assert f"What fail2ban read ({read}) has" in note


def test_an_unprintable_path() -> None:
    """A file whose name is not text is left out, with a note."""
    found = converted({"paths": ("/log/\udcff", "/log/a\nb")})

    assert found.paths == ()
    assert len(notes(found, LOGS)) == 2


def test_the_journal_takes_the_place_of_logs() -> None:
    """A jail that reads the journal does not read logs."""
    found = converted({"backend": "systemd[journalflags=1]", "paths": ("/log/a",)})

    assert (found.journal, found.paths) == (True, ())
    assert not converted({"backend": "auto"}).journal


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
def test_the_time_zone(written: str, zone: str) -> None:
    """An offset becomes the zone of that offset, whose sign is inverted in POSIX."""
    found = converted({"logtimezone": written})

    assert (found.timezone, notes(found, LOGS)) == (zone, [])


@pytest.mark.parametrize("written", ["+0530", "CET", "+15"])
def test_an_unknown_time_zone(written: str) -> None:
    """A fraction of an hour, or an abbreviation, is noted and not guessed."""
    found = converted({"logtimezone": written})

    assert found.timezone is None
    assert notes(found, LOGS) == [f'logtimezone {written}: name the zone, such as timezone = "Europe/Berlin"']


@pytest.mark.parametrize(
    ("options", "table", "said"),
    [
        (
            {"ignorecommand": "/usr/bin/ask <ip>"},
            ALLOW,
            "ignorecommand = /usr/bin/ask <ip>: no command is run",
        ),
        ({"ignoreself": "false"}, ALLOW, "ignoreself = false: this host's own addresses are never banned"),
        (
            {"port": "5060,5061"},
            GUESS,
            'port = 5060,5061: a ban covers only the ports of Asterisk, unless the rule has scope = "all"',
        ),
        ({"bantime.rndtime": "5m"}, GUESS, "bantime.rndtime = 5m: "),
        (
            {"actions": ("iptables", "sendmail-whois", "nftables-allports")},
            GUESS,
            "action sendmail-whois: is not executed; each ban is a line in ringfence's log",
        ),
    ],
)
def test_unsupported_options(options: Mapping[str, str | tuple[str, ...]], table: str, said: str) -> None:
    """Each unsupported option has one note with the reason, at its table."""
    [note] = notes(converted(options), table)

    assert note.startswith(said)


def test_options_without_notes() -> None:
    """Empty options, defaults and firewall actions need no note."""
    options: Mapping[str, str | tuple[str, ...]] = {
        "ignorecommand": "",
        "ignoreself": "true",
        "port": "ssh",
        "actions": ("ufw", "firewallcmd-ipset"),
    }

    assert not any(notes(converted(options), table) for table in (ALLOW, LOGS, GUESS))


def test_several_jails_are_one_configuration() -> None:
    """All lists are merged, the first jail's numbers count, and the others' are noted."""
    found = converted(
        {"ignored": ("192.0.2.1",), "paths": ("/a",), "maxretry": "6"},
        {
            "ignored": ("192.0.2.1", "192.0.2.2"),
            "paths": ("/b",),
            "maxretry": "20",
            "bantime": "1w",
            "backend": "systemd",
        },
        {"ignored": ("192.0.2.3",), "paths": ("/a", "/c"), "maxretry": "6"},
    )

    assert found.jails == ("jail0", "jail1", "jail2")
    assert [str(network.network_address) for network in found.networks] == [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
    ]
    assert (found.paths, found.journal) == (("/a", "/c"), True)
    assert (found.guess.attempts, found.guess.window, found.guess.ban) == (6, 600.0, (3600.0,))
    [note] = notes(found, GUESS)
    assert note.startswith(
        "of jail jail1 not carried over: maxretry = 20, bantime = 1w; jail jail0 comes first"
    )


@pytest.mark.parametrize(("text", "seconds"), [("1h", 3600), ("-1", -1), ("soon", None), ("", None)])
def test_bantime(text: str, seconds: float | None) -> None:
    """The jail's bantime is returned, if it has one, for a database without lengths."""
    assert bantime_of(jail({"bantime": text})) == seconds


def test_a_jail_of_the_manager_interface_fills_its_rule() -> None:
    """Its numbers are those of the rule `manager`, whichever jail comes first."""
    lines = {"patterns": ("^.*manager.c: <HOST> failed to authenticate as '[^']*'$",)}
    found = converted({**lines, "maxretry": "3"}, {"maxretry": "7"}, {**lines, "maxretry": "4"})

    assert (found.guess.attempts, found.manager.attempts) == (7, 3)
    assert any("not carried over: maxretry = 4" in note for note in notes(found, MANAGER))
    document = document_of(found)
    assert (
        document.index("[rules.guess]") < document.index("attempts = 7") < document.index("[rules.manager]")
    )
    assert document.index("[rules.manager]") < document.index("attempts = 3")


def test_a_jail_of_the_manager_interface_alone() -> None:
    """The rule of guesses keeps its defaults."""
    found = converted({"patterns": ("<HOST> tried to authenticate with nonexistent user",)})

    assert (found.guess.attempts, found.manager.attempts) == (None, 5)
