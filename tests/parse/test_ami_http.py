"""Manager events are trusted only as far as Asterisk's replies rule out AMI over HTTP."""

from ipaddress import ip_address

import pytest
from attrs import evolve
from tests.parse.packets import BANNER, BY_TCP, SOURCE, head, packet, tail

from ringfence.parse import ami_http
from ringfence.parse.ami import END, HOLD, MAX_FRAGMENTS, MAX_PACKET, AmiDecoder
from ringfence.parse.ami_http import HOLD_WITHIN, MOST_HELD, AmiItem, Reply
from ringfence.parse.roster import RosterEvent
from ringfence.values.event import EventKind, SecurityEvent, Service

TOKEN = "5f1d"
VICTIM = b"IPV4/TLS/203.0.113.9/5061"
FAILED = packet(service=b"AMI")
"""A failed login at the AMI port."""
FORGED_TLS = packet(EventKind.CHALLENGE_RESPONSE_FAILED, remote=VICTIM)
FORGED_TAIL = b"\r\n".join([b"x", *tail(b"0x1", VICTIM, VICTIM)]) + END
FORGED_HEAD = b"\r\n".join([*head(EventKind.INVALID_ACCOUNT_ID, b"AMI"), b"AccountID: y"])
FORGED_MANAGER = packet(service=b"AMI", remote=VICTIM)
FORGED_PHONE = b"Event: ContactStatus\r\nPrivilege: system,all\r\nURI: sip:a@203.0.113.9" + END
SHAPES = {
    "head-then-tail": FORGED_TAIL.removesuffix(END),
    "packet": FORGED_TAIL + FORGED_TLS * 5 + FORGED_MANAGER * 3,
    "head-of-the-true-tail": FORGED_TAIL + FORGED_TLS * 5 + FORGED_HEAD,
    "phone": FORGED_TAIL + FORGED_PHONE + FORGED_HEAD,
    "fragments": b"x" + END * (MAX_FRAGMENTS + 1) + FORGED_TLS * 5,
    "too-long": b"x" * (MAX_PACKET + 1) + END + FORGED_TLS * 5,
    "too-long-in-two": b"x" * MAX_PACKET + FORGED_TAIL + FORGED_TLS * 5 + FORGED_HEAD,
    "answer": FORGED_TAIL
    + b"Response: Success\r\nActionID: 5f1e-http-3\r\nCoreHTTPenabled: No"
    + END
    + FORGED_TLS,
}


class Peer:
    """A decoder, and a peer whose replies the test chooses."""

    def __init__(self, *answers: str) -> None:
        self.decoder = AmiDecoder(SOURCE, TOKEN)
        self.decoder.receive(BANNER, 0.0)
        for answer in answers:
            assert [type(one) for one in self.answer(answer)] == [Reply]

    def answer(self, value: str, now: float = 0.0) -> list[AmiItem]:
        """Ask, and feed the answer; an empty value is a refusal."""
        return self.decoder.receive(self.reply(value), now)

    def reply(self, value: str) -> bytes:
        """Ask, and return the bytes of the answer."""
        reply = f"Response: Success\r\nActionID: {self.decoder.http.ask()}\r\nAMIversion: 11.0.0\r\n"
        refused = reply.replace("Success", "Error") + "Message: Permission denied\r\n"
        text = f"{reply}CoreHTTPenabled: {value}\r\nSoundsSearchCustomDir: No\r\n" if value else refused
        return f"{text}\r\n".encode()

    def receive(self, data: bytes, now: float = 0.0) -> list[AmiItem]:
        """Feed what Asterisk wrote."""
        return self.decoder.receive(data, now)


def events(items: list[AmiItem]) -> list[SecurityEvent]:
    """Return the security events among the items."""
    return [one for one in items if isinstance(one, SecurityEvent)]


def wanted(peer: Peer) -> bool:
    """Whether the decoder wants a question sent now."""
    return peer.decoder.http.wanted


def deadline(peer: Peer) -> float | None:
    """Return the decoder's deadline, read again."""
    return peer.decoder.deadline


def test_a_failed_login_waits_for_the_reply_and_is_trusted() -> None:
    """With AMI over HTTP off before and after, the event comes with the reply, and unmarked."""
    peer = Peer("No", "No")
    assert peer.receive(FAILED) == []
    assert wanted(peer)
    items = peer.answer("No")

    assert [type(one) for one in items] == [SecurityEvent, Reply]
    [event] = events(items)
    assert (event.service, event.forgeable, event.tampered) == (Service.AMI, False, False)
    assert not wanted(peer)
    assert peer.decoder.deadline is None


def test_events_after_a_failed_login_wait_with_it() -> None:
    """Events of phones and of other services keep their order and stay unmarked."""
    peer = Peer("No", "No")
    assert peer.receive(FAILED + FORGED_TLS + FORGED_PHONE + FAILED) == []
    items = peer.answer("No")

    assert [type(one) for one in items] == [SecurityEvent, SecurityEvent, RosterEvent, SecurityEvent, Reply]
    assert {event.forgeable for event in events(items)} == {False}
    assert events(peer.receive(FORGED_TLS))[0].forgeable is False


@pytest.mark.parametrize("answers", [(), ("No",), ("Yes",), ("",), ("No", "Yes", "No"), ("No", "No", "Yes")])
@pytest.mark.parametrize("shape", SHAPES)
def test_text_of_an_http_client_is_forgeable(shape: str, answers: tuple[str, ...]) -> None:
    """Unless two replies in a row were No, everything up to the next reply is marked, whatever it is."""
    for last in ("No", "Yes", ""):
        peer = Peer(*answers)
        items = peer.receive(packet(service=b"AMI", account=SHAPES[shape]) + FORGED_TLS, 0.0)
        items += peer.answer(last)

        assert {event.forgeable for event in events(items)} == {True}
        assert not [one for one in items if isinstance(one, RosterEvent)]
        assert events(peer.receive(FORGED_TLS))[0].forgeable is False


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 1000, 10**9])
def test_text_is_forgeable_while_http_is_switched_on(shape: str, size: int) -> None:
    """``manager reload`` raises no event, so a Yes after the event decides, at any split."""
    if size == 1 and len(SHAPES[shape]) > 10_000:
        size = 4096
    peer = Peer("No", "No")
    stream = packet(service=b"AMI", account=SHAPES[shape])
    items = [
        one for start in range(0, len(stream), size) for one in peer.receive(stream[start : start + size])
    ]
    assert events(items) == []
    items = peer.answer("Yes")

    assert {event.forgeable for event in events(items)} <= {True}
    assert not [one for one in items if isinstance(one, RosterEvent)]
    assert not wanted(peer)


def test_a_digest_of_a_manager_login_forges_no_more() -> None:
    """Hostile text after the tail, in the digest of a login over HTTP, is marked in the same way."""
    peer = Peer("Yes", "Yes")
    rest = (b"Challenge: 1", b"Response: " + END + FORGED_TLS + b"x", b"ExpectedResponse: e")
    items = peer.receive(packet(EventKind.CHALLENGE_RESPONSE_FAILED, service=b"AMI", account=b"", rest=rest))

    assert {event.forgeable for event in events(items + peer.answer("Yes"))} == {True}


def test_asterisks_own_address_is_not_read_from_text_of_a_client() -> None:
    """An event between a failed login and the reply names no address; one after it does, in the same read."""
    peer = Peer("No", "No")
    peer.receive(FAILED + FORGED_TLS)
    assert peer.decoder.local_addresses == set()
    peer.receive(peer.reply("No") + FORGED_TLS)
    assert peer.decoder.local_addresses == {ip_address("198.51.100.1")}


def test_one_question_at_a_time() -> None:
    """A flood of failed logins asks once for each reply, and a question that is already sent suffices."""
    peer = Peer("No", "No")
    peer.receive(FAILED)
    peer.decoder.http.ask()
    peer.receive(FAILED * 100)

    assert not wanted(peer)


def test_each_question_has_an_id_of_its_own() -> None:
    """Asterisk repeats the ActionID in its reply, so each action needs another one."""
    http = Peer().decoder.http
    assert len({http.ask() for _ in range(3)}) == 3


def test_a_success_at_the_manager_asks_nothing() -> None:
    """A successful login names a user of manager.conf, so nothing in it can be forged."""
    peer = Peer()
    [event] = events(peer.receive(packet(EventKind.SUCCESSFUL_AUTH, service=b"AMI")))

    assert not event.forgeable
    assert not wanted(peer)


@pytest.mark.parametrize("size", [1, 1000])
def test_held_events_are_forgeable_after_their_time(size: int) -> None:
    """Without a reply within its time, or for more bytes than are kept, held events are forgeable."""
    peer = Peer("No", "No")
    assert peer.receive(FAILED, 1.0) == []
    assert peer.decoder.tick(1.0 + HOLD) == []
    assert deadline(peer) == 1.0 + HOLD_WITHIN
    [event] = events(peer.decoder.tick(1.0 + HOLD_WITHIN))

    assert event.forgeable
    assert deadline(peer) is None
    assert events(peer.receive(FORGED_TLS * size, 7.0))[0].forgeable
    assert not events(peer.answer("No", 7.0) + peer.receive(FORGED_TLS))[0].forgeable


def test_the_decoder_is_due_when_the_first_of_its_parts_is() -> None:
    """While an event waits for a reply and the next one for its remainder, the earlier time counts."""
    peer = Peer("No", "No")
    peer.receive(FAILED, 1.0)
    peer.decoder.tick(1.0 + HOLD)
    assert deadline(peer) == 1.0 + HOLD_WITHIN
    peer.receive(FAILED, 2.0)
    assert deadline(peer) == 2.0 + HOLD


def test_a_reply_ends_an_unfinished_event() -> None:
    """The rest of an event that a reply interrupts is no event, because no text continues after a reply."""
    peer = Peer("No", "No")
    whole = packet(account=b"a" + END + b"b")
    cut = whole.index(END) + len(END)
    assert peer.receive(whole[:cut]) == []
    peer.answer("No")
    assert events(peer.receive(whole[cut:])) == []
    assert peer.decoder.tick(9.0) == []


def test_held_items_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that does not reply makes the decoder keep no more than its bound."""
    monkeypatch.setattr(ami_http, "MOST_HELD", 10_000)
    peer = Peer("No", "No")
    peer.receive(FAILED)
    items = [one for _ in range(100) for one in peer.receive(FORGED_TLS)]

    assert len(items) >= 100 - 10_000 // len(FORGED_TLS)
    assert {event.forgeable for event in events(items)} == {True}
    assert MOST_HELD == 4 * 2**20


def test_as_many_bytes_are_held_as_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte more ends the wait, and each wait counts from 0."""
    peer = Peer("No", "No")
    for most, passed in ((len(FAILED), 0), (len(FAILED) - 1, 1), (len(FAILED), 0)):
        monkeypatch.setattr(ami_http, "MOST_HELD", most)
        peer.receive(FAILED)
        assert deadline(peer) is not None
        items = peer.decoder.tick(HOLD)
        assert (len(items), deadline(peer) is None) == (passed, bool(passed))
        peer.answer("No")


def test_a_reply_with_another_id_ends_nothing() -> None:
    """Only a reply that carries the secret token ends the text of a client."""
    peer = Peer("Yes")
    peer.receive(FAILED)
    peer.receive(b"Response: Success\r\nActionID: action/1-http-2\r\nCoreHTTPenabled: No" + END)

    assert events(peer.receive(FORGED_TLS))[0].forgeable


@pytest.mark.parametrize(
    "broken",
    [
        packet(service=b"AMI", session=b"call-1"),
        packet(service=b"AMI", session=b"(nil)"),
        packet(service=b"AMI", remote=BY_TCP.replace(b"TCP", b"UDP")),
        packet(service=b"AMI", remote=BY_TCP.replace(b"/TCP", b"")),
        packet(service=b"AMI", rest=(b"SessionTV: now",)),
        packet(service=b"AMI", rest=(b"X: y",)),
        packet(service=b"AMI", account=b"a\rb"),
        packet(service=b"AMI").replace(b"LocalAddress: IPV4/TCP", b"LocalAddress: IPV4/UDP"),
        FAILED.removesuffix(END) + END + b"\r\n".join(tail(b"0x1", VICTIM)) + END,
    ],
)
def test_a_manager_event_outside_the_grammar_is_tampered(broken: bytes) -> None:
    """A tail other than pointer, TCP or TLS addresses and the known headers in order is tampered."""
    peer = Peer("No", "No")
    peer.receive(broken)
    [event] = events(peer.answer("No"))

    assert event.tampered


def test_a_state_is_per_connection() -> None:
    """``enabled`` is the last reply, and unknown if it is refused."""
    peer = Peer()
    states = [peer.decoder.http.enabled]
    for answer in ("No", "Yes", "", "No"):
        peer.answer(answer)
        states.append(peer.decoder.http.enabled)

    assert states == [None, False, True, None, False]


def test_a_marked_event_is_the_same_otherwise() -> None:
    """The mark changes nothing else of an event."""
    sure, unsure = Peer("No", "No"), Peer()
    sure.receive(FAILED)
    [marked] = events(unsure.receive(FAILED) + unsure.answer("No"))

    assert events(sure.answer("No")) == [evolve(marked, forgeable=False)]


def test_a_recording_is_believed() -> None:
    """The Asterisk of a recording cannot be asked, so nothing is marked, and the decoder reports it."""
    decoder = AmiDecoder(SOURCE, recorded=True)
    found = [*decoder.receive(BANNER + FORGED_TLS, 0.0), *decoder.tick(1.0)]
    assert not decoder.http.recorded_manager
    found += [*decoder.receive(FAILED + FORGED_TLS, 2.0), *decoder.tick(3.0)]
    assert [event.forgeable for event in events(found)] == [False] * 3
    assert decoder.http.recorded_manager
