"""``ringfence why``, for people and for scripts, with the daemon up and down."""

import json
from collections.abc import Iterator
from io import StringIO
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from tests.explain.world import NOW, RULE, ban, count, friend, holder, known, proven, running, story
from tests.support.amiserver import Script
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import AlarmRecord
from ringfence.cli import why
from ringfence.cli.screen import Screen
from ringfence.explain.as_json import document
from ringfence.features.ration.stage import AskingRation, Ration
from ringfence.firewall.contract import FirewallPlan
from ringfence.firewall.limits import LimitMode
from ringfence.store.bans import RecordedBan
from ringfence.values.attempt import AttemptKind, Proof
from ringfence.values.ban import BanEnd
from ringfence.values.entry import ListKind
from ringfence.values.friend import FriendReason

GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()
GUESSER = "198.18.1.101"


@pytest.fixture(name="guard", scope="module")
def _guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """Return a daemon with the memory firewall, three guesses and an allowed address, for all tests."""
    folder = tmp_path_factory.mktemp("why")
    with (
        ami_server(Script(play=[GRANTED, GUESSES])) as pbx,
        Guard(folder, ami={"port": pbx.port}, allow={"networks": ["203.0.113.0/24"]}) as guard,
    ):
        until(lambda: guard.status()["attempts"] == 3, "the attempts")
        yield guard


def test_why_as_json(guard: Guard) -> None:
    """--json prints an object with the state of the address and each attempt."""
    done = guard.command("why", GUESSER, "--json")
    told = json.loads(done.stdout)

    assert (done.returncode, done.stderr) == (0, "")
    assert (told["address"], told["verdict"], told["daemon"]) == (GUESSER, "stranger", True)
    assert [(one["account"], one["sources"]) for one in told["attempts"]] == [("alice", ["ami"])] * 3
    assert {rule["rule"]: rule["have"] for rule in told["rules"]}["guess"] == 3


def test_why_for_people(guard: Guard) -> None:
    """State, outlook, attempts and rules of the address fit 80 columns."""
    done = guard.command("why", GUESSER)
    lines = done.stdout.splitlines()

    assert (done.returncode, done.stderr) == (0, "")
    assert lines[:3] == [f"{GUESSER} is not banned", "", "friend    no"]
    assert lines[3].startswith("ration    4 refusals at once, then 2 a second; the kernel ")
    assert lines[4].startswith("asking    5 datagrams at once, then 2 a second; the kernel ")
    [outlook] = [line for line in lines if line.startswith("next")]
    assert outlook.startswith("next      4 more proven guesses within ")
    [attempts] = [line for line in lines if " alice " in line]
    assert attempts.split()[0] == "3"
    assert any(line.split()[:4] == ["guess", "3", "of", "5"] for line in lines)
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in done.stdout


def test_a_ban_and_its_end(guard: Guard) -> None:
    """A banned address is shown with the way to unban it; a network can be queried too."""
    guard.must("ban", "192.0.2.0/24", "--for", "2h", "--reason", "a test", "--force")
    text = guard.must("why", "192.0.2.7")

    assert text.startswith("192.0.2.7 is banned\n")
    assert "admin of 192.0.2.0/24, a test" in text
    assert "ringfence unban 192.0.2.7" in text
    assert json.loads(guard.must("why", "192.0.2.0/24", "--json"))["verdict"] == "banned"


def test_an_allowed_address(guard: Guard) -> None:
    """The entry, its origin, and that no rule bans the address are shown."""
    text = guard.must("why", "203.0.113.9")

    assert text.startswith("203.0.113.9 is allowed\n")
    assert "list      allow: 203.0.113.0/24, from configuration" in text


def test_without_the_daemon_the_database_is_read(guard: Guard) -> None:
    """The ban is shown with its reason; standard error states that the rest is unknown."""
    guard.must("ban", "198.51.100.9", "--reason", "a test")
    guard.stop()  # so this is the last test of this daemon
    done = guard.command("why", "198.51.100.9")

    assert done.returncode == 0
    assert done.stderr.startswith("The daemon does not answer")
    assert "admin, a test" in done.stdout
    assert json.loads(guard.command("why", "203.0.113.9", "--json").stdout)["verdict"] == "allowed"


def test_an_invalid_address_is_wrong_usage(tmp_path: Path) -> None:
    """Text that looks like an address but is not one is wrong usage, quoted as typed."""
    done = Guard(tmp_path).command("why", "192.0.2.300")

    assert done.returncode == 2
    assert "not an address or network: '192.0.2.300'" in " ".join(done.stderr.split())


def test_a_read_error_is_a_problem(tmp_path: Path) -> None:
    """Everything else is shown, each problem is a line on standard error, and the exit code is 1."""
    guard = Guard(tmp_path)
    (tmp_path / "ringfence.db").write_bytes(b"no database at all" * 100)
    done = guard.command("why", "192.0.2.7")

    assert done.returncode == 1
    assert "192.0.2.7 is not banned" in done.stdout
    assert "ringfence.db" in done.stderr


# -- the output for a document ---------------------------------------------------------------------------


def shown(monkeypatch: pytest.MonkeyPatch, width: int = 80, **what: Any) -> list[str]:  # noqa: ANN401 - whatever is known
    """Return the lines that people see for a document."""
    file = StringIO()
    monkeypatch.setattr("time.time", lambda: NOW)
    why._print(document(known(**what)), Screen(width=width, file=file))
    return file.getvalue().splitlines()


def test_every_fact_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Current and past bans, lists, current and former friends: one or two lines each."""
    lines = shown(
        monkeypatch,
        running=(running(ban(made=proven(5), offence=2)),),
        past=(RecordedBan(ban("192.0.2.0/24", since=NOW - 9_000), NOW - 8_000, BanEnd.REMOVED),),
        holders=(holder(ListKind.DENY, "192.0.2.0/24", note="bad people", origin="feed voipbl"),),
        friends=(friend(FriendReason.REGISTERED, "205"),),
        former=(friend(until=NOW - 10),),
        story=story(count(RULE["slow"], 3, 2), made=proven(3)),
    )

    assert lines[0] == "192.0.2.1 is banned"
    text = "\n".join(lines)
    assert "ban       guess, 2. ban, somebody tries; 5 of 5 attempts proven;" in text
    assert "7 packets dropped" in text
    assert "list      deny: 192.0.2.0/24, bad people, from feed voipbl" in text
    assert "friend    205 (registered, unproven) since 2023-11-14 20:15" in text
    assert "was       204 (authenticated) until 2023-11-14 22:14" in text
    assert "kernel    drops all it sends\n" in text
    assert "before    guess of 192.0.2.0/24, somebody tries; since 2023-11-14 19:45, ended" in text
    assert ": it was removed" in text
    assert lines[-1].split() == ["slow", "3", "of", "20", "2", "1d", "3m"]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("mode", "what"),
    [
        (LimitMode.ENFORCE, "drops"),
        (LimitMode.OBSERVE, "only counts"),
    ],
)
def test_the_ration_of_a_stranger(monkeypatch: pytest.MonkeyPatch, mode: LimitMode, what: str) -> None:
    """A line for each ration states how much of what passes, and whether the kernel drops the others."""
    ration, asking = Ration(mode, burst=4, rate=2), AskingRation(mode, burst=5, rate=2)
    text = " ".join(" ".join(shown(monkeypatch, plan=FirewallPlan(added=(ration, asking)))).split())
    rest = f"at once, then 2 a second; the kernel {what} the others"
    assert f"ration 4 refusals {rest} asking 5 datagrams {rest}" in text


def test_alarms_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alarms follow the first line, as in ``status``."""
    text = "extension 204 has a wrong password"
    alarm = AlarmRecord(1, AlarmCode.PHONE_BROKEN, "204 at 192.0.2.1", text, NOW, NOW, times=300)

    assert shown(monkeypatch, alarms=(alarm,))[1] == (
        "! phone.broken 204 at 192.0.2.1: extension 204 has a wrong password (300 times)"
    )


def test_attempts_have_sources_and_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt has its sources and a note; columns that are alike in all rows are left out."""
    [one] = proven(1)
    log = "log:/var/log/ringfence/ringfence"
    odd = evolve(
        one, sources=("ami", log, f"{log}#notice"), trusted=False, tampered=True, account="a" * 200 + "\x1b"
    )
    aimed = evolve(one, time=one.time + 1, forged_address=ip_network("192.0.2.9")[0], sources=("journal",))
    lines = shown(monkeypatch, 140, running=(running(ban(made=(one,))),), story=story(made=(odd, aimed)))

    heads = next(line.split() for line in lines if line.startswith("TIME"))
    assert heads == ["TIME", "(UTC)", "REASON", "ACCOUNT", "BY", "PROOF", "SOURCES", "NOTE"]
    assert any("ami+log+wire" in line and line.rstrip().endswith("banned") for line in lines)
    assert any("ami+log+notice+wire" in line and "tampered, unconfirmed" in line for line in lines)
    assert any("journal+wire" in line and line.rstrip().endswith("names 192.0.2.9") for line in lines)
    assert "\x1b" not in "".join(lines)
    assert max(map(len, lines)) <= 140


def test_attempts_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts of a network have their addresses; only the latest are shown, and the earlier ones counted."""
    made = tuple(evolve(proven(1)[0], time=NOW + n, address=ip_network("192.0.2.0/24")[n]) for n in range(25))
    lines = shown(monkeypatch, running=(running(ban("192.0.2.0/24", made=made)),))

    assert sum("192.0.2.24" in line for line in lines) == 1
    assert sum(" alice " in line for line in lines) == 20
    assert max(map(len, lines)) <= 80
    assert "5 earlier ones: --json" in lines


def test_addresses_and_accounts_are_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a table is too wide, the date, the service and the sources are left out in this order."""
    told = ("ami", "log:x", "log:x#notice", "wire")
    [one, other] = (
        evolve(
            proven(1)[0],
            time=NOW + n,
            address=ip_network("192.0.2.0/24")[100 + n],
            account="204",
            sources=told,
        )
        for n in range(2)
    )
    lines = shown(monkeypatch, running=(running(ban("192.0.2.0/24", made=(one, other))),))

    heads = next(line.split() for line in lines if line.startswith("TIME"))
    assert heads[:5] == ["TIME", "(UTC)", "ADDRESS", "REASON", "ACCOUNT"]
    assert sum("192.0.2.101" in line and " 204 " in line and "banned" in line for line in lines) == 1
    assert max(map(len, lines)) <= 80


def test_attempts_of_several_days_keep_their_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a narrow screen the service and the sources are left out before the date."""
    made = tuple(evolve(proven(1)[0], time=NOW - days * 86_400.0, account="a" * 20) for days in (1, 0))
    lines = shown(monkeypatch, story=story(made=made))

    assert any(line.split()[:3] == ["2", "2023-11-14", "22:15:00"] for line in lines), lines
    assert max(map(len, lines)) <= 80


def test_a_long_address_takes_no_room_from_other_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """An IPv6 address for which the table is too narrow takes two lines; accounts and notes stay whole."""
    one = evolve(proven(1)[0], kind=AttemptKind.PROBE, proof=Proof.HANDSHAKE, account="204")
    made = tuple(
        evolve(one, time=NOW + n, address=ip_address(f"2001:db8:1234:5678:9abc:def0:1234:567{n}"))
        for n in range(2)
    )
    lines = shown(monkeypatch, running=(running(ban("2001:db8:1234:5678::/64", made=made)),))

    assert sum(" 204 " in line and line.rstrip().endswith(" banned") for line in lines) == 2
    assert not any("…" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_a_cut_account_ends_with_an_ellipsis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its beginning must not look like the whole name."""
    long = evolve(proven(1)[0], account="a" * 48)

    assert any(f" {'a' * 39}… " in line for line in shown(monkeypatch, 140, story=story(made=(long,))))


def test_earlier_bans_that_are_left_out_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest 20 bans that ended are shown, and the number of the others."""
    past = tuple(RecordedBan(ban(since=NOW - 9_000 - n), NOW - 8_000 - n, BanEnd.REMOVED) for n in range(21))
    lines = shown(monkeypatch, past=past)

    assert sum(line.startswith("before    guess") for line in lines) == 20
    assert "before    1 earlier ban: --json" in lines


@pytest.mark.parametrize(
    ("headline", "what"),
    [
        ("192.0.2.1 is not banned", {}),
        ("192.0.2.1 is a friend", {"friends": (friend(),)}),
        ("192.0.2.1 is denied", {"holders": (holder(ListKind.DENY, "192.0.2.1"),)}),
        ("192.0.2.1 is never banned by a rule", {"protected": {ip_network("192.0.2.1"): "the gateway"}}),
        ("192.0.2.1: nothing is dropped because enforcement is switched off", {"enforcing": False}),
        ("192.0.2.1 should be banned, but the ban is missing in the kernel", {"running": (False, "full")}),
        ("192.0.2.1 is banned from the SIP ports by UDP", {"running": (True, "sip-udp")}),
        ("192.0.2.1 is banned from the SIP ports", {"running": (True, "sip")}),
        ("192.0.2.1 is banned from the SIP ports by TCP", {"running": (True, "sip-tcp")}),
    ],
)
def test_the_first_line(monkeypatch: pytest.MonkeyPatch, headline: str, what: dict[str, Any]) -> None:
    """The first line is one sentence with the state of the address."""
    if "running" in what:
        in_kernel, scope = what["running"]
        what = {"running": (running(ban(scope=scope), in_kernel=in_kernel),)}

    assert shown(monkeypatch, **what)[0] == headline
