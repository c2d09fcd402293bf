"""Programs that attack as they come: what passes the cable is read, and those that guess are banned."""

from pathlib import Path

import pytest
from attrs import evolve
from tests.judge.oracle import GUESSES
from tests.live.play import CHECKED, Fate, game
from tests.live.programs import PROGRAMS, Attack, Capture, attacks, left_out, objections
from tests.live.truth import TCP, UDP, Packet
from tests.support.network import PBX_IPV4
from tests.support.scanners import NEIGHBOURS
from tests.support.sip_raw import OWN_CHALLENGE, Raw

NAMES = ("svcrack", "nmap sip-brute", "nmap sip-brute by TCP", "sipp that registers by TCP")
SOURCE = "198.19.0.1"
QUESTION = Raw()
GUESS = QUESTION.answering(OWN_CHALLENGE, "wrong")


def _packet(data: bytes, *, leaves: bool = True, protocol: int = UDP) -> Packet:
    """Return a packet that a program sends, or one that it gets."""
    source, target = (SOURCE, PBX_IPV4) if leaves else (PBX_IPV4, SOURCE)
    header = bytes(8) if protocol == UDP else bytes(12) + b"\x50" + bytes(7)
    return Packet(
        leaves=leaves, source=source, target=target, protocol=protocol, data=header + data, time=0.0
    )


def _answer(asked: bytes, status: int) -> bytes:
    """Return an answer with all header lines of a request."""
    return b"SIP/2.0 %d Answer\r\n" % status + asked.partition(b"\r\n")[2]


def _fates(capture: Capture) -> list[Fate]:
    return [capture.fate(key, CHECKED["22"]) for key in capture.requests]


@pytest.mark.parametrize(
    ("raw", "status", "fate"),
    [
        (GUESS, 401, Fate.MUST),
        (GUESS, 404, Fate.MAY),
        (QUESTION, 401, Fate.NONE),
        (QUESTION, 404, Fate.MAY),
        (evolve(QUESTION, from_user=b"100"), 401, Fate.MAY),
    ],
)
def test_a_request_has_the_fate_that_its_answer_shows(raw: Raw, status: int, fate: Fate) -> None:
    """A refused guess must count, a challenged question for the account must not, any other may count."""
    capture, asked = Capture(SOURCE, b"alice"), raw.encode(f"{SOURCE}:5060", "UDP", "text")
    capture.add(_packet(asked))
    capture.add(_packet(_answer(asked, status), leaves=False))
    assert _fates(capture) == [fate]


def test_a_guess_that_tcp_sends_again_in_part_is_still_one() -> None:
    """A guess remains one if another segment repeats its first bytes without the digest."""
    asked = QUESTION.encode(f"{SOURCE}:5060", "TCP", "text").removesuffix(b"\r\n")
    capture = Capture(SOURCE, b"alice")
    capture.add(_packet(asked + b"Authorization: Digest x\r\n\r\n", protocol=TCP))
    capture.add(_packet(asked, protocol=TCP))
    capture.add(_packet(_answer(asked, 401) + b"\r\n", leaves=False, protocol=TCP))
    assert _fates(capture) == [Fate.MUST]


def test_an_attack_without_a_refused_guess_is_an_objection() -> None:
    """A program that guesses must have a refused guess, also if it is banned; others need none."""
    without, with_one = (Attack("svcrack", 9, 9, guesses, 0.0, banned=True) for guesses in (0, 1))
    asking = Attack("svmap", 1, 1, 0, 0.0, banned=False)
    calling = Attack("sipp that calls", 30, 9, 0, 0.0, banned=True)
    assert [*objections([without])] == ["svcrack: no guess was refused, so nothing was judged"]
    assert [*objections([with_one, asking, calling])] == []
    assert [*objections([evolve(calling, banned=False)])] == ["sipp that calls is not banned"]


def test_a_missing_program_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If only nmap is installed, its scripts alone attack, and each other program is named."""
    (tmp_path / "nmap").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("RINGFENCE_LAB", str(tmp_path))
    missing = left_out(PROGRAMS, tmp_path)
    assert all(name.startswith("nmap ") != (name in missing) for name in PROGRAMS)
    assert {*missing.values()} == {"svmap", "svwar", "svcrack", "sippts", "sipp"}


@pytest.mark.asterisk
def test_programs_as_they_come_are_banned(tmp_path: Path) -> None:
    """Scanners and test tools that guess are banned, and each guess that Asterisk refused counts once.

    The ban may drop the answer to the guess that caused it.
    """
    with game("22", tmp_path, 1, NEIGHBOURS) as played:
        found, wrong = attacks(played, "22", tmp_path, NAMES)
    assert wrong == [], [*map(str, found)]
    assert all(one.guesses >= GUESSES - 1 for one in found), [*map(str, found)]
