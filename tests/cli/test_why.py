"""``ringfence why``, as typed, for people and for scripts, with the daemon up and down."""

import json
from collections.abc import Iterator
from io import StringIO
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from rich.console import Console
from tests.support.amiserver import Script
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until
from tests.why.world import NOW, RULE, ban, count, friend, holder, known, proven, running, story

from ringfence.alarms import Alarm
from ringfence.cli import why
from ringfence.model import Side, Tie
from ringfence.store_past import Past
from ringfence.why.document import document

GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()
GUESSER = "198.18.1.101"


@pytest.fixture(name="guard")
def _guard(tmp_path: Path) -> Iterator[Guard]:
    """Give a daemon of pretence that has heard three guesses, with an address that is allowed."""
    with (
        ami_server(Script(play=[GRANTED, GUESSES])) as pbx,
        Guard(tmp_path, ami={"port": pbx.port}, allow={"networks": ["203.0.113.0/24"]}) as guard,
    ):
        until(lambda: guard.status()["attempts"] == 3, "the attempts")
        yield guard


def test_why_as_json(guard: Guard) -> None:
    """An object on standard output and nothing else, with who it is and each attempt."""
    done = guard.command("why", GUESSER, "--json")
    told = json.loads(done.stdout)

    assert (done.returncode, done.stderr) == (0, "")
    assert (told["address"], told["verdict"], told["daemon"]) == (GUESSER, "stranger", True)
    assert [(one["account"], one["sources"]) for one in told["attempts"]] == [("alice", ["ami"])] * 3
    assert {rule["rule"]: rule["have"] for rule in told["rules"]}["guess"] == 3


def test_why_for_people(guard: Guard) -> None:
    """Who it is, what would have to happen, what it did and what rules count; 80 columns hold it."""
    done = guard.command("why", GUESSER)
    lines = done.stdout.splitlines()

    assert (done.returncode, done.stderr) == (0, "")
    assert lines[:3] == [f"{GUESSER} is not banned", "", "friend    no"]
    assert lines[3].startswith("next      4 more proven guesses within ")
    assert sum(" alice " in line for line in lines) == 3
    assert any(line.split()[:4] == ["guess", "3", "of", "5"] for line in lines)
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in done.stdout


def test_a_ban_and_its_end(guard: Guard) -> None:
    """A banned address says so, and how it gets out; a network is asked for like an address."""
    guard.must("ban", "192.0.2.0/24", "--for", "2h", "--reason", "a test", "--force")
    text = guard.must("why", "192.0.2.7")

    assert text.startswith("192.0.2.7 is banned\n")
    assert "admin of 192.0.2.0/24, a test" in text
    assert "ringfence unban 192.0.2.7" in text
    assert json.loads(guard.must("why", "192.0.2.0/24", "--json"))["verdict"] == "banned"


def test_whom_a_list_allows(guard: Guard) -> None:
    """The entry, where it comes from, and that nothing bans it."""
    text = guard.must("why", "203.0.113.9")

    assert text.startswith("203.0.113.9 is allowed\n")
    assert "list      allow: 203.0.113.0/24, from configuration" in text


def test_without_the_daemon_the_record_speaks(guard: Guard) -> None:
    """The ban is told with its reason, and that the rest is not known stands on standard error."""
    guard.must("ban", "198.51.100.9", "--reason", "a test")
    guard.stop()
    done = guard.command("why", "198.51.100.9")

    assert done.returncode == 0
    assert done.stderr.startswith("The daemon is not running")
    assert "admin, a test" in done.stdout
    assert json.loads(guard.command("why", "203.0.113.9", "--json").stdout)["verdict"] == "allowed"


def test_what_is_no_address_is_wrong_usage(tmp_path: Path) -> None:
    """With the word as it was typed."""
    done = Guard(tmp_path).command("why", "pbx")

    assert done.returncode == 2
    assert "not an address or a network: 'pbx'" in " ".join(done.stderr.split())


def test_what_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    """The rest is told, each problem is a line on standard error, and the exit code says so."""
    guard = Guard(tmp_path)
    (tmp_path / "ringfence.db").write_bytes(b"no database at all" * 100)
    done = guard.command("why", "192.0.2.7")

    assert done.returncode == 1
    assert "192.0.2.7 is not banned" in done.stdout
    assert "ringfence.db" in done.stderr


# -- what is shown of a document --------------------------------------------------------------------------


def shown(monkeypatch: pytest.MonkeyPatch, width: int = 80, **what: Any) -> list[str]:  # noqa: ANN401 - whatever is known
    """Give the lines that people see of what is known."""
    file = StringIO()
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(width=width, file=file, highlight=False))
    monkeypatch.setattr("time.time", lambda: NOW)
    why._print(document(known(**what)))
    return file.getvalue().splitlines()


def test_all_there_is_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bans with the kernel's word, lists, friends now and before, bans of before: a line or two each."""
    lines = shown(
        monkeypatch,
        running=(running(ban(made=proven(5), offence=2)),),
        past=(Past(ban("192.0.2.0/24", since=NOW - 9_000), NOW - 8_000),),
        holders=(holder(Side.DENY, "192.0.2.0/24", note="bad people", origin="/lists/voipbl"),),
        friends=(friend(Tie.REGISTERED, "205"),),
        former=(friend(until=NOW - 10),),
        story=story(count(RULE["slow"], 3, 2), made=proven(3)),
    )

    assert lines[0] == "192.0.2.1 is banned"
    text = "\n".join(lines)
    assert "ban       guess, 2. ban, somebody tries; of 5 attempts 5 proven;" in text
    assert "7 packets dropped" in text
    assert "list      deny: 192.0.2.0/24, bad people, from /lists/voipbl" in text
    assert "friend    205 (registered, by its own word) since 2023-11-14 20:15" in text
    assert "was       204 (authenticated) until 2023-11-14 22:14" in text
    assert "kernel    drops all it sends\n" in text
    assert "before    guess of 192.0.2.0/24, somebody tries; since 2023-11-14 19:45, lifted" in text
    assert lines[-1].split() == ["slow", "3", "of", "20", "2", "1d", "3m"]
    assert max(map(len, lines)) <= 80


def test_alarms_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the first line, as status shows them."""
    alarm = Alarm("phone.broken", "204 at 192.0.2.1", "extension 204 has a wrong password", NOW, NOW, 300)

    assert shown(monkeypatch, alarms=(alarm,))[1] == (
        "! phone.broken 204 at 192.0.2.1: extension 204 has a wrong password (300 times)"
    )


def test_attempts_are_shown_with_what_is_strange_about_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who told of it in a word each, and a note; what is the same for all has no column."""
    [one] = proven(1)
    log = "log:/var/log/ringfence/ringfence"
    odd = evolve(
        one, sources=("ami", log, f"{log}#notice"), trusted=False, tampered=True, account="a" * 200 + "\x1b"
    )
    aimed = evolve(one, time=one.time + 1, aimed_at=ip_network("192.0.2.9")[0], sources=("journal",))
    lines = shown(monkeypatch, 120, running=(running(ban(made=(one,))),), story=story(made=(odd, aimed)))

    heads = next(line.split() for line in lines if line.startswith("TIME"))
    assert heads == ["TIME", "(UTC)", "ACCOUNT", "BY", "PROOF", "TOLD", "BY", "NOTE"]
    assert any("ami+log+wire" in line and line.rstrip().endswith("banned") for line in lines)
    assert any("ami+log+notice+wire" in line and "tampered, withheld" in line for line in lines)
    assert any("journal+wire" in line and line.rstrip().endswith("aimed at 192.0.2.9") for line in lines)
    assert "\x1b" not in "".join(lines)
    assert max(map(len, lines)) <= 120


def test_attempts_of_several_addresses_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the ban of a network; of very many the last are shown, and how many there are before them."""
    made = tuple(evolve(proven(1)[0], time=NOW + n, address=ip_network("192.0.2.0/24")[n]) for n in range(25))
    lines = shown(monkeypatch, running=(running(ban("192.0.2.0/24", made=made)),))

    assert sum("192.0.2.24" in line for line in lines) == 1
    assert sum(" alice " in line for line in lines) == 20
    assert max(map(len, lines)) <= 80
    assert "5 more before these: --json" in lines


def test_who_tried_what_is_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is room for addresses but not for all, the date and by what it came give way first."""
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
    assert heads[:5] == ["TIME", "(UTC)", "ADDRESS", "ACCOUNT", "BY"]
    assert sum("192.0.2.101" in line and " 204 " in line and "banned" in line for line in lines) == 1
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("headline", "what"),
    [
        ("192.0.2.1 is not banned", {}),
        ("192.0.2.1 is a friend", {"friends": (friend(),)}),
        ("192.0.2.1 is denied", {"holders": (holder(Side.DENY, "192.0.2.1"),)}),
        ("192.0.2.1 is never banned by a rule", {"protected": {ip_network("192.0.2.1"): "the gateway"}}),
        ("192.0.2.1: nothing is dropped, since enforcement is switched off", {"enforcing": False}),
        ("192.0.2.1 is to be banned, and the kernel does not have it", {"running": (False, "full")}),
        ("192.0.2.1 is banned from the SIP ports by UDP", {"running": (True, "sip-udp")}),
    ],
)
def test_the_first_line_says_it(monkeypatch: pytest.MonkeyPatch, headline: str, what: dict[str, Any]) -> None:
    """In one sentence, whatever else there is."""
    if "running" in what:
        in_kernel, scope = what["running"]
        what = {"running": (running(ban(scope=scope), in_kernel=in_kernel),)}

    assert shown(monkeypatch, **what)[0] == headline
