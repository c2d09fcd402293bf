"""Random SIP to a real Asterisk: what is judged, and that the judge notices a daemon that does not count."""

import random
import socket
from collections import Counter
from pathlib import Path

import pytest
from tests.judge.oracle import ATTACKERS, GUESSES, Judge, View
from tests.live import play
from tests.live.play import RULES, WAYS, Fate, Record, game
from tests.live.requests import changed, guess, is_clear, plain
from tests.live.truth import Answer, Truth, watched
from tests.support.daemon import until
from tests.support.hostile_text import Victim
from tests.support.network import PBX_IPV4, Network, socket_in
from tests.support.sip_wire import Challenge

VICTIM = Victim("203.0.113.9")
CHALLENGE = Challenge(401, "asterisk", "1/nonce")
WHERE = "198.19.0.1:5060", "UDP"


def _requests(seed: int, number: int) -> list[tuple[bytes, bool]]:
    """Return the bytes of changed guesses, and whether each is clear."""
    chosen, made = random.Random(seed), []  # noqa: S311 - no secret
    for mark in range(number):
        raw = guess(plain(chosen, b"alice", mark), CHALLENGE, 0)
        request = changed(chosen, raw, WHERE, mark, VICTIM, 3)
        made.append((request.data, request.clear))
    return made


def test_a_seed_repeats_its_requests() -> None:
    """The same seed results in the same bytes, another one in others."""
    assert _requests(1, 50) == _requests(1, 50) != _requests(2, 50)


def test_a_clear_guess_has_its_own_digest() -> None:
    """A clear guess has one digest, in one piece, with the nonce of its challenge; many are not clear."""
    made = _requests(3, 400)
    clear = [data for data, is_clear in made if is_clear]
    assert 100 < len(clear) < 350
    for data in clear:
        head = data.partition(b"\r\n\r\n")[0]
        assert head.lower().count(b"authorization:") == 1
        assert b'\r\nAuthorization: Digest username="alice", realm="asterisk", nonce="1/nonce"' in head


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"\r\nAuth", b"\r\n Auth"),
        (b"\r\nAuth", b"\r\nAuthorization: Digest x\r\nAuth"),
        (b"\r\nAuth", b"\r\nxAuth"),
        (b"\r\nAuth", b"\r\n\r\nAuth"),
        (b"\r\nFrom", b"\rX\r\nFrom"),
        (b"REGISTER", b"\r\n\r\nREGISTER"),
        (b"wrong", b"wrong"),
    ],
)
def test_a_guess_is_clear_only_if_nothing_touches_its_digest(before: bytes, after: bytes) -> None:
    """A digest that is folded, doubled, renamed or behind the headers is not clear; an unchanged one is."""
    raw = guess(plain(random.Random(1), b"alice", 1), CHALLENGE, 0)  # noqa: S311 - no secret
    data = raw.encode(*WHERE, "text")
    assert is_clear(raw, data, data.replace(before, after, 1)) is (before == after)


def test_an_answer_belongs_to_the_mark_that_it_repeats() -> None:
    """An answer counts for its mark, once; without a mark, or with two, it is unknown."""
    nothing = socket.socket()
    nothing.close()
    truth = Truth(nothing, nothing)
    for mark in (b"zz7zz", b"zz7zz", b"zz8zz;stale=true", b"", b"zz7zz zz8zz"):
        truth.add(b"SIP/2.0 401 Unauthorized\r\nCall-ID: " + mark + b"\r\n\r\n")
    truth.add(b"SIP/2.0 100 Trying\r\nCall-ID: zz9zz\r\n\r\n")
    assert truth.answers == {7: {Answer(401, stale=False)}, 8: {Answer(401, stale=True)}}
    assert truth.unknown == 2


def test_a_ban_for_one_request_is_an_objection() -> None:
    """A narrow ban for one request is unjust, also while many other senders guess at the same account."""
    judge, one = Judge(), "198.19.1.1"
    for number in range(GUESSES * ATTACKERS):
        judge.sent(play._sent(f"198.19.0.{number % ATTACKERS + 1}", "TCP", number, "wrong"))
    judge.sent(play._sent(one, "TCP", 0, "wrong", "question"))
    bans = frozenset({(one, "sip-tcp")})
    found = judge.check(View(bans, bans, bans, bans, {one: 1}), 0.0, quiet=False)
    assert [violation.invariant for violation in found] == ["F"]


def test_only_refused_guesses_beyond_the_threshold_are_late() -> None:
    """The guess that reaches the threshold is on time; what need not count is neither a guess nor late."""
    guesses = [(Fate.MUST, 10.0 + number) for number in range(GUESSES)]
    others = [(Fate.MAY, 30.0), (Fate.NONE, 31.0)]
    assert Record("198.19.1.1", "UDP", [*others, *guesses]).beyond == []
    late = Record("198.19.1.1", "UDP", [(Fate.MUST, 14.5), *guesses, (Fate.MUST, 16.0), *others])
    assert (late.least, late.beyond) == (GUESSES + 2, [0.5, 2.0])


@pytest.mark.kernel
def test_an_answer_that_leaves_is_read() -> None:
    """A datagram that leaves is an answer, even if nobody receives it. One that arrives is not."""
    with Network() as network, watched(network.pbx) as truth:
        for namespace, mark, receiver in ((network.pbx, 7, "198.18.1.1"), (network.attacker, 8, PBX_IPV4)):
            with socket_in(namespace, kind=socket.SOCK_DGRAM) as sender:
                sender.sendto(b"SIP/2.0 403 Forbidden\r\nCall-ID: zz%dzz\r\n\r\n" % mark, (receiver, 5060))

        def has_answers() -> bool:
            truth.read()
            return bool(truth.answers)

        until(has_answers, "the answer")
    assert truth.answers == {7: {Answer(403, stale=False)}}


@pytest.mark.asterisk
def test_the_judge_has_no_objection(tmp_path: Path) -> None:
    """Clear guesses by each transport count if Asterisk refused them; only their senders are banned."""
    with game("22", tmp_path, 1) as played:
        found = played.play(0)
    refused = Counter[str]()
    for one in found.senders:
        refused[one.transport] += found.refused[one.address]
    assert refused.total() > 40
    assert {name for name, number in refused.items() if number} == set(WAYS["22"])
    assert len(found.banned) > 10
    assert played.truth.exported > len(found.banned)
    assert [str(one) for one in found.violations] == []


@pytest.mark.asterisk
def test_the_judge_notices_guesses_that_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon whose rule `guess` is off bans nobody, and the judge names each sender that goes on."""
    monkeypatch.setitem(RULES, "guess", {"enabled": False})
    with game("22", tmp_path, 1) as played:
        found = played.play(0)
    assert {one.invariant for one in found.violations} == {"C"}
    assert any("is not banned" in str(one) for one in found.violations)
