"""Random SIP to a real Asterisk: what is judged, and that the judge notices a daemon that does not count."""

import random
from pathlib import Path

import pytest
from tests.live.play import RULES, game
from tests.live.requests import changed, guess, plain
from tests.live.truth import Answer, Truth
from tests.support.hostile_text import Victim
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


def test_an_answer_belongs_to_the_mark_that_it_repeats() -> None:
    """An answer counts for its mark, once; without a mark, or with two, it is unknown."""
    truth = Truth(*[object()] * 2)  # type: ignore[arg-type]
    for mark in (b"zz7zz", b"zz7zz", b"zz8zz;stale=true", b"", b"zz7zz zz8zz"):
        truth.add(b"SIP/2.0 401 Unauthorized\r\nCall-ID: " + mark + b"\r\n\r\n")
    truth.add(b"SIP/2.0 100 Trying\r\nCall-ID: zz9zz\r\n\r\n")
    assert truth.answers == {7: {Answer(401, stale=False)}, 8: {Answer(401, stale=True)}}
    assert len(truth.unknown) == 2


@pytest.mark.asterisk
def test_the_judge_has_no_objection(tmp_path: Path) -> None:
    """Clear guesses that Asterisk refused count, their senders are banned, and nobody else is."""
    with game("22", tmp_path, 1) as played:
        found = played.play(0)
    assert found.refused > 40
    assert found.banned > 10
    assert [str(one) for one in found.violations] == []


@pytest.mark.asterisk
def test_the_judge_notices_guesses_that_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon whose rule `guess` is off bans nobody, and the judge names each sender that goes on."""
    monkeypatch.setitem(RULES, "guess", {"enabled": False})
    with game("22", tmp_path, 1) as played:
        found = played.play(0)
    assert {one.invariant for one in found.violations} == {"C"}
    assert any("is not banned" in str(one) for one in found.violations)
