"""Conversations of strangers: a right password is no guess, and a guess that gets no answer is one."""

import time
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.asterisk_files import PASSWORD
from tests.support.daemon import until
from tests.support.guarded import SharedGuard, guarded, shared
from tests.support.lab import Lab
from tests.support.network import PBX_IPV6
from tests.support.open_pbx import configured
from tests.support.sip_raw import (
    GARBAGE,
    NOWHERE,
    OTHER_REALM,
    OWN_CHALLENGE,
    Digest,
    Raw,
    calling,
    invented,
    request_of,
)
from tests.support.sip_wire import status_of

pytestmark = pytest.mark.asterisk

LAMP = (
    f"[lamp]\ntype=friend\nhost=dynamic\nsecret={PASSWORD}\nallowsubscribe=no\ncontext=lamps\n"
    "transport=udp,tcp,ws\n"
)
FORBIDDEN = "[lamps]\nexten => 100,1,Hangup(21)\n"


def test_a_phone_whose_lamps_and_calls_are_refused_makes_no_attempt(tmp_path: Path) -> None:
    """chan_sip answers 403 to a subscription and to a call after the right password, and reports neither."""
    texts = configured("16")
    for name, text in (("sip.conf", LAMP), ("extensions.conf", FORBIDDEN)):
        texts[name] = texts.get(name, "") + "\n" + text
    with (
        Lab.made("16", texts) as lab,
        guarded(lab, tmp_path) as guard,
    ):
        cases = product((b"SUBSCRIBE", b"INVITE"), ("UDP", "TCP", "WS"))
        for number, (method, transport) in enumerate(cases):
            source, other = f"198.19.{60 + number}.1", f"198.19.{70 + number}.1"
            with calling(lab, source, transport) as caller:
                statuses = [caller.guess(request_of(method, b"lamp"), PASSWORD) for _ in range(8)]
            assert statuses == [403] * 8, (method, transport)
            with calling(lab, other, transport) as caller:
                assert caller.guess(request_of(method, b"lamp"), "wrong") in (401, 403)
            until(lambda other=other: guard.attempts_of(other), "the guess")  # type: ignore[misc]
            assert guard.attempts_of(source) == [], (method, transport)
        assert guard.banned() == set()


def test_a_guess_behind_a_long_via_at_chan_sip_counts(open16: Lab) -> None:
    """chan_sip cuts the Via in its answer, and reports no SUBSCRIBE, so only the request names the sender."""
    source = "198.19.91.1"
    request = evolve(request_of(b"SUBSCRIBE", b"carol"), via=b";rport;x=" + b"y" * 600)
    with shared(open16) as guard:
        with calling(open16, source) as caller:
            for _ in range(8):
                caller.guess(request, "wrong", 2.0)
        until(lambda: source in guard.banned(), "the ban")


@pytest.mark.parametrize("hidden", [False, True], ids=["reported", "hidden"])
def test_guesses_that_get_no_answer_end_with_a_ban(open22: Lab, hidden: bool) -> None:  # noqa: FBT001 - a parameter
    """The answer goes to a black hole: PJSIP checks the password, and the conversation shows the guess."""
    source = f"198.19.92.{1 + hidden}"
    call_id = b"\xff{}" if hidden else b"{}"
    with shared(open22) as guard, calling(open22, source) as caller:
        for number in range(8):
            challenge = caller.challenged(Raw(call_id=b"c{}", from_user=b"alice"))
            if challenge is None:
                break  # the ban
            blind = Raw(call_id=call_id, from_user=b"alice", via=NOWHERE, cseq=number + 5)
            caller.send(blind.answering(challenge, f"wrong-{number}"))
            time.sleep(1.0)
        until(lambda: guard.banned() == {source}, "the ban", 20.0)


def test_guesses_on_connections_that_are_reset_end_with_a_ban(open22: Lab) -> None:
    """The sender resets its connection behind each hidden guess, so that no answer can leave."""
    source = "198.19.96.1"
    with shared(open22) as guard:
        for number in range(8):
            with calling(open22, source, "TCP") as caller:
                challenge = caller.challenged(Raw(call_id=b"c{}", from_user=b"alice"))
                if challenge is None:
                    break  # the ban
                blind = Raw(call_id=b"\xff{}", from_user=b"alice", cseq=number + 5)
                caller.send(blind.answering(challenge, f"wrong-{number}"))
                caller.reset()
            time.sleep(1.0)
        until(lambda: guard.banned() == {source}, "the ban", 20.0)


@pytest.mark.parametrize("before", [OTHER_REALM, GARBAGE], ids=["other realm", "garbage"])
def test_a_first_header_hides_no_guess_and_no_proof(open22: Lab, before: bytes) -> None:
    """Two Authorization headers and a 512-byte Call-ID; each guess is paid by an event that no source sees.

    The ban is full: the nonce in the second header proves the sender.
    """
    source = f"198.19.93.{1 + (before is GARBAGE)}"
    request = Raw(call_id=b"x" * 496 + b"{}", digest=Digest(before=before))
    with shared(open22) as guard:
        statuses = []
        with calling(open22, source) as caller:
            for _ in range(20):
                statuses.append(caller.guess(request, "wrong", 0.5))
                caller.send(Raw(via=NOWHERE))
                time.sleep(0.05)
        until(lambda: guard.scopes() == {source: "sip"}, "the ban")
        assert len([status for status in statuses if status]) <= 14  # a busy machine judges late


def test_an_urgent_byte_hides_no_guess(open22: Lab) -> None:
    """Asterisk does not get an urgent byte, so it reads credentials where others see none.

    Question and guess have one CSeq number, and a first header hides the guess from Asterisk's events.
    """
    source = "198.19.97.1"
    with shared(open22) as guard:
        statuses = []
        with calling(open22, source, "TCP") as caller:
            for number in range(10):
                request = Raw(call_id=b"x" * 490 + b"%d" % number, digest=Digest(before=OTHER_REALM))
                challenge = caller.challenged(request)
                if challenge is None:
                    break  # the ban
                caller.send_urgent(request.answering(challenge, "wrong"), b"Authorization")
                statuses.append(status_of(caller.answer() or b""))
                guard.take_turn()
        until(lambda: guard.scopes() == {source: "sip"}, "the ban")
        assert statuses[0] == 401
        assert len([status for status in statuses if status]) <= 8


@pytest.mark.parametrize("method", [b"REGISTER", b"MESSAGE"])
def test_an_invented_nonce_hides_no_guess_at_chan_sip(open16: Lab, method: bytes) -> None:
    """chan_sip checks the password although it never sent the nonce; a From that is not UTF-8 hides it."""
    source = f"198.19.94.{len(method)}"
    with shared(open16) as guard:
        answers = 0
        with calling(open16, source) as caller:
            for number in range(12):
                time.sleep(0.05)
                guard.take_turn()
                answers += caller.ask(invented(method, number), 0.3) is not None
        until(lambda: source in guard.banned(), "the ban")
        assert answers <= 8
        assert {row["account"] for row in guard.attempts_of(source)} == {"carol"}


def test_a_message_that_nobody_answers_hides_no_guess(open16: Lab) -> None:
    """Before each guess comes an answer to nothing, with its Call-ID and number; chan_sip leaves it out."""
    source = "198.19.98.1"
    with shared(open16) as guard:
        answers = 0
        with calling(open16, source) as caller:
            for number in range(12):
                guess = invented(b"REGISTER", 100 + number)
                junk = evolve(guess, extra=b"").encode(f"{source}:5060", "UDP")
                caller.send_bytes(b"SIP/2.0 200 OK" + junk[junk.index(b"\r\n") :])
                time.sleep(0.05)
                guard.take_turn()
                answers += caller.ask(guess, 0.3) is not None
        until(lambda: source in guard.banned(), "the ban")
        assert answers <= 8


def test_many_nonces_hide_no_blind_guess(open22: Lab) -> None:
    """PJSIP uses the last of 70 nonces, and neither its events nor its log name the sender."""
    source = "198.19.99.1"
    many = b"".join(b'nonce="%d", ' % number for number in range(70))
    with shared(open22) as guard, calling(open22, source) as caller:
        for number in range(8):
            challenge = caller.challenged(Raw(call_id=b"c{}"))
            if challenge is None:
                break  # the ban
            blind = Raw(call_id=b"\xff{}m", from_display=b'"\x1b"', via=NOWHERE, cseq=number + 5)
            guess = blind.answering(challenge, "wrong")
            caller.send(evolve(guess, extra=guess.extra.replace(b"Digest ", b"Digest " + many)))
            time.sleep(1.0)
        until(lambda: guard.banned() == {source}, "the ban", 20.0)


def test_extension_headers_of_ipv6_hide_no_guess(open22: Lab) -> None:
    """Each request has destination options; a first header hides the guess, and an event pays for it."""
    source = "fd00:19::98:1"
    options = b"\0\0\1\4\0\0\0\0"
    with shared(open22) as guard:
        statuses = []
        with calling(open22, source, host=PBX_IPV6) as caller:
            caller.add_destination_options(options)
            for number in range(40):
                request = Raw(call_id=b"x" * 510 + b"%02d" % number, digest=Digest(before=OTHER_REALM))
                challenge = caller.challenged(request, 1.0)
                if guard.banned():
                    break
                if challenge is None:  # other tests have used up the ration of this /64
                    time.sleep(0.5)
                    continue
                statuses.append(status_of(caller.ask(request.answering(challenge, "wrong")) or b""))
                caller.send(evolve(request, via=NOWHERE))
                time.sleep(0.05)
                guard.take_turn()
        until(lambda: bool(guard.banned()), "the ban")
        assert statuses[0] == 401
        assert len([status for status in statuses if status]) <= 8


@pytest.mark.parametrize("text", [b"a\r\n b", b"a\rb", b"a\r\xffb"], ids=["fold", "cr", "cr-hidden"])
def test_an_odd_line_hides_no_guess_with_an_invented_nonce(open16: Lab, text: bytes) -> None:
    """By TCP such a request may be unreadable; chan_sip's challenges count, each in its own Call-ID."""
    source = f"198.19.{92 + len(text)}.{1 + text.count(10)}"
    with shared(open16) as guard, calling(open16, source, "TCP") as caller:
        answered = 0
        for number in range(12):
            asking = Raw(from_user=b"carol", to_display=b'"%b" ' % text).named(f"odd-{number}-{source}")
            caller.send(asking.answering(OWN_CHALLENGE, f"wrong-{number}"))
            answered += caller.answer(0.5, own=False) is not None
            with suppress(AssertionError):  # not every request makes an attempt
                until(lambda number=number: _has_read(guard, source, number + 1), "the attempt", 0.5)  # type: ignore[misc]
        until(lambda: source in guard.banned(), "the ban")
        assert answered <= 7


def _has_read(guard: SharedGuard, source: str, number: int) -> bool:
    """Whether the daemon has read so many attempts of an address, or has banned it."""
    return len(guard.attempts_of(source)) >= number or source in guard.banned()
