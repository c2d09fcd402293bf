"""Conversations: each refusal belongs to the request that it answers, and each request is answered once."""

from collections import Counter
from ipaddress import ip_address
from math import inf

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from ringfence.detect.conversation import (
    DIVERTED_SILENCE,
    LIFE,
    MOST_REQUESTS,
    MOST_UNREAD_CONNECTIONS,
    SILENCE,
    Conversations,
)
from ringfence.values.event import Endpoint, Transport
from ringfence.values.network import Address
from ringfence.values.packet import CopiedAnswer, CopiedRequest

HERE, ONE, OTHER = ip_address("198.18.0.1"), ip_address("192.0.2.7"), ip_address("192.0.2.8")


def asks(
    sequence: int, *, credentials: bool = True, text: bytes = b"", sender: Address = ONE
) -> CopiedRequest:
    """Return a request of the session "c"."""
    digest = b"%d %b" % (sequence, text)
    return CopiedRequest(sender, 5062, (), (b"c",), (sequence,), credentials, digest)


def refusal(sequence: int | None, *, status: int = 401, accepted: bool = False) -> CopiedAnswer:
    """Return an answer in the session "c"."""
    return CopiedAnswer(
        ONE, 5062, HERE, 5060, b"c", b"n", ONE, status=status, sequence=sequence, accepted=accepted
    )


Told = tuple[bytes, bool]
"""The digest of the request to which an answer belongs, and whether it was a guess."""

REPEAT: Told = (b"", False)


def answered(talk: Conversations, answer: CopiedAnswer, sender: Address, now: float) -> Told | None:
    """Record an answer; return its request, REPEAT, or None if nothing is known."""
    found = talk.answer(answer, sender, now)
    if found is None:
        return None
    return (found.asked.request.digest if found.asked is not None else b"", found.guess)


def test_of_an_unknown_conversation_nothing_is_known() -> None:
    """Without a copied request of exactly this sender and Call-ID, the result is None."""
    talk = Conversations()
    assert answered(talk, refusal(1), ONE, 0.0) is None
    talk.ask(asks(1), 0.0)
    assert answered(talk, refusal(1), OTHER, 0.0) is None
    assert answered(talk, evolve(refusal(1), call_id=b"d"), ONE, 0.0) is None
    assert answered(talk, refusal(1), ONE, LIFE - 0.1) == (asks(1).digest, True)
    assert answered(talk, refusal(1), ONE, LIFE) is None


def test_a_request_is_answered_once() -> None:
    """The first answer belongs to it; a repeat, also after a retransmission, belongs to nothing."""
    talk = Conversations()
    talk.ask(asks(1), 0.0)
    assert answered(talk, refusal(1), ONE, 0.0) == (asks(1).digest, True)
    talk.ask(asks(1), 1.0)
    assert answered(talk, refusal(1), ONE, 1.0) == REPEAT
    talk.ask(asks(1, text=b"new"), 1.0)
    assert answered(talk, refusal(1), ONE, 1.0) == (asks(1, text=b"new").digest, True)


def test_a_request_without_a_call_id_belongs_to_no_conversation() -> None:
    """Asterisk answers such a request in no way that could be matched."""
    talk = Conversations()
    talk.ask(evolve(asks(1), call_ids=()), 0.0, challenged=True)
    assert len(talk) == 0


def test_of_a_request_that_was_not_copied_nothing_is_known() -> None:
    """An answer with a number of no request, when no guess waits, answers what the kernel did not copy."""
    talk = Conversations()
    talk.ask(asks(1, credentials=False), 0.0)
    assert answered(talk, refusal(1), ONE, 0.0) == (asks(1, credentials=False).digest, False)
    assert answered(talk, refusal(2), ONE, 0.0) is None


def test_part_of_a_request_hides_nothing() -> None:
    """Credentials may stand in a fragment that was not copied, so nothing is known of this conversation."""
    talk = Conversations()
    talk.ask(asks(1, credentials=False), 0.0)
    talk.ask(evolve(asks(1, credentials=False, text=b"part"), unread=True), 0.0)
    assert answered(talk, refusal(1), ONE, 0.0) is None


def test_a_refusal_belongs_to_the_guess_and_not_to_what_nobody_answers() -> None:
    """Before its guess the sender writes a message with the same number that Asterisk does not answer."""
    talk = Conversations()
    talk.ask(asks(1, credentials=False, text=b"junk"), 0.0)
    talk.ask(asks(1), 0.0)
    assert answered(talk, refusal(1), ONE, 0.0) == (asks(1).digest, True)


GUESS = asks(7)
SETTLING = {
    "a BYE": (asks(7, credentials=False, text=b"bye"), refusal(7, status=481)),
    "a BYE with credentials": (evolve(asks(7, text=b"bye"), method="BYE"), refusal(7, status=481)),
    "a CANCEL with credentials": (evolve(asks(7, text=b"cancel"), method="CANCEL"), refusal(7, status=200)),
    "a guest's call": (asks(7, credentials=False, text=b"call"), refusal(7, status=100)),
    "a forbidden request": (asks(7, credentials=False, text=b"no password"), refusal(7, status=403)),
    "a bad request": (asks(7, text=b"an invented nonce"), refusal(7, status=420)),
    "the owner's old nonce": (asks(7, text=b"an old nonce"), refusal(7, accepted=True)),
}
"""Requests that Asterisk answers without checking a password, or after a right one, and their answers."""


@pytest.mark.parametrize("order", ["behind the guess", "before the guess"])
@pytest.mark.parametrize("which", SETTLING)
def test_an_answer_that_is_no_refusal_settles_no_guess_beside_its_own_request(which: str, order: str) -> None:
    """A sender writes both with one number and Call-ID, and has the answer to the guess sent elsewhere."""
    talk = Conversations()
    other, answer = SETTLING[which]
    guess = evolve(GUESS, redirected=True)
    for request in (guess, other) if order == "behind the guess" else (other, guess):
        talk.ask(request, 0.0, challenged=request is guess)
    found = talk.answer(answer, ONE, 0.1)
    assert found is not None
    assert found.asked is not None
    assert found.asked.request.digest == other.digest
    assert [asked.request.digest for asked in talk.unanswered(1.0)] == [guess.digest]


def test_one_of_two_guesses_with_one_number_is_settled() -> None:
    """Both may be right, so as many count as Asterisk has not accepted."""
    talk = Conversations()
    for text in (b"1", b"2"):
        talk.ask(asks(7, text=text), 0.0, challenged=True)
    assert answered(talk, refusal(7, status=200), ONE, 0.0) == (asks(7, text=b"1").digest, False)
    assert answered(talk, refusal(7), ONE, 0.0) == (asks(7, text=b"2").digest, True)


@pytest.mark.parametrize("repeated", ["the answer", "the request"])
def test_a_repeated_answer_that_is_no_refusal_settles_no_guess(repeated: str) -> None:
    """Asterisk repeats the answer to a call for 32 s, and answers each copy of a request."""
    talk, other = Conversations(), asks(7, credentials=False, text=b"call")
    talk.ask(other, 0.0)
    assert answered(talk, refusal(7, status=404), ONE, 0.0) == (other.digest, False)
    talk.ask(GUESS, 1.0, challenged=True)
    for _ in range(3):
        if repeated == "the request":
            talk.ask(other, 1.0)
        assert answered(talk, refusal(7, status=404), ONE, 1.0) == REPEAT
    assert answered(talk, refusal(7), ONE, 1.0) == (GUESS.digest, True)


@pytest.mark.parametrize("copies", [1, 2])
def test_a_repeated_question_takes_each_answer_to_it(copies: int) -> None:
    """Asterisk may challenge a request, and answer its copy in another way."""
    talk, question = Conversations(), asks(7, credentials=False, text=b"question")
    for _ in range(copies):
        talk.ask(question, 0.0)
    assert answered(talk, refusal(7), ONE, 0.0) == (question.digest, False)
    talk.ask(GUESS, 0.0)
    expected = REPEAT if copies == 2 else (GUESS.digest, False)
    assert answered(talk, refusal(7, status=404), ONE, 0.0) == expected


def test_a_phone_may_answer_a_challenge_with_the_same_number() -> None:
    """It ought to increment the number (RFC 3261 §22.2); its right password is no guess all the same."""
    talk, question = Conversations(), asks(1, credentials=False, text=b"question")
    talk.ask(question, 0.0)
    assert answered(talk, refusal(1), ONE, 0.0) == (question.digest, False)
    talk.ask(asks(1), 0.1, challenged=True)
    assert answered(talk, refusal(1, status=200), ONE, 0.1) == (asks(1).digest, False)
    assert answered(talk, refusal(1, status=200), ONE, 0.2) == REPEAT


@pytest.mark.parametrize(("method", "repeats"), [("REGISTER", False), ("INVITE", True)])
def test_a_phone_may_change_a_request_that_it_sends_again(method: str, repeats: bool) -> None:  # noqa: FBT001
    """For instance its Via. Asterisk answers both; by itself it repeats only the answer to an INVITE."""
    talk = Conversations()
    one, other = (evolve(asks(2, text=text), method=method) for text in (b"first", b"second"))
    for request in (one, other):
        talk.ask(request, 0.0, challenged=True)
    assert answered(talk, refusal(2, status=200), ONE, 0.0) == (one.digest, False)
    assert answered(talk, refusal(2, status=200), ONE, 0.0) == (REPEAT if repeats else (other.digest, False))


def test_a_fragment_takes_the_answer_that_is_no_refusal_and_its_repeats() -> None:
    """Of its conversation nothing is known, but the guess with its number stays one."""
    talk = Conversations()
    talk.ask(evolve(asks(7, credentials=False, text=b"part"), unread=True), 0.0)
    talk.ask(GUESS, 0.0)
    for _ in range(2):
        assert answered(talk, refusal(7, status=404), ONE, 0.0) is None
    assert answered(talk, refusal(7), ONE, 0.0) == (GUESS.digest, True)


@pytest.mark.parametrize("credentials", [False, True])
def test_a_call_that_is_cancelled_at_once_is_no_guess(credentials: bool) -> None:  # noqa: FBT001 - a parameter
    """A CANCEL has the number of its INVITE; a 1xx answers the INVITE alone."""
    talk, call = Conversations(), evolve(asks(2), method="INVITE")
    cancel = evolve(asks(2, credentials=credentials, text=b"cancel"), method="CANCEL")
    for request in (call, cancel):
        talk.ask(request, 0.0, challenged=request.credentials)
    for status, digest in ((100, call.digest), (200, cancel.digest), (487, b"")):
        assert answered(talk, refusal(2, status=status), ONE, 0.0) == (digest, False)
    talk.ask(asks(1, sender=OTHER), 1.0)
    answered(talk, refusal(1), OTHER, 1.0)
    assert blind(talk, SILENCE + 1.0) == []


def test_a_1xx_answers_no_cancel() -> None:
    """Without the INVITE it answers what was not copied."""
    talk = Conversations()
    talk.ask(evolve(asks(2, credentials=False), method="CANCEL"), 0.0)
    assert answered(talk, refusal(2, status=180), ONE, 0.0) is None


@pytest.mark.parametrize(
    "answer", [refusal(8, status=481), refusal(8, accepted=True), refusal(8, status=403)]
)
def test_an_answer_that_is_no_refusal_has_the_number_of_its_request(answer: CopiedAnswer) -> None:
    """A sender may have it answer a request that was not copied."""
    talk = Conversations()
    talk.ask(GUESS, 0.0)
    assert answered(talk, answer, ONE, 0.0) is None
    assert answered(talk, refusal(8), ONE, 0.0) == (GUESS.digest, True)


def test_a_crowded_request_gets_any_refusal_to_its_sender() -> None:
    """Its true Call-ID or number may not be known. An answer to another request is no success of it."""
    crowded = evolve(asks(2), crowded=True, call_ids=(b"f", b""))
    for other in (asks(1, credentials=False), evolve(asks(1, credentials=False), call_ids=(b"f",))):
        talk = Conversations()
        talk.ask(other, 0.0)
        talk.ask(crowded, 0.0)
        session = other.call_ids[0]
        assert answered(talk, evolve(refusal(1, status=481), call_id=session), ONE, 0.0) == (
            other.digest,
            False,
        )
        assert answered(talk, evolve(refusal(1), call_id=session), ONE, 0.0) == (crowded.digest, True)
        assert answered(talk, evolve(refusal(1), call_id=session), ONE, 0.0) == REPEAT
    talk = Conversations()
    talk.ask(crowded, 0.0)
    assert answered(talk, refusal(7, status=200), ONE, 0.0) == (crowded.digest, False)
    assert answered(talk, refusal(7), ONE, 0.0) is None
    talk.ask(evolve(by_tcp(crowded), port=7), 0.0)
    assert answered(talk, tcp_refusal(9, port=7), ONE, 0.0) == (crowded.digest, True)


def test_a_question_is_no_guess() -> None:
    """Without credentials nothing was guessed; with them, a success or an accepted password is no guess."""
    talk = Conversations()
    for number, (asked, answer) in enumerate(
        [
            (asks(1, credentials=False), refusal(1)),
            (asks(2), refusal(2, status=200)),
            (asks(3), refusal(3, accepted=True)),
            (asks(4), refusal(4, status=404)),
        ]
    ):
        talk.ask(asked, float(number))
        assert answered(talk, answer, ONE, float(number)) == (asked.digest, False)


def blind(talk: Conversations, now: float) -> list[int]:
    """Return the numbers of the blind guesses."""
    return [asked.request.sequences[0] for asked in talk.unanswered(now)]


def test_a_guess_without_an_answer_is_blind_once_another_is_answered() -> None:
    """Silence alone shows nothing: Asterisk may hang. An answer to somebody who asked later shows a guess."""
    talk = Conversations()
    talk.ask(asks(1), 0.0, challenged=True)
    talk.ask(asks(2), 0.5, challenged=True)
    assert blind(talk, SILENCE + 1.0) == []
    talk.ask(asks(1, sender=OTHER), 0.2)
    answered(talk, refusal(1), OTHER, 0.3)
    assert blind(talk, SILENCE - 0.1) == []
    assert blind(talk, SILENCE) == [1]
    assert blind(talk, SILENCE + 2.0) == []
    talk.ask(asks(2, sender=OTHER), 1.0)
    answered(talk, refusal(2), OTHER, 1.0)
    assert blind(talk, SILENCE + 2.0) == [2]
    assert answered(talk, refusal(1), ONE, SILENCE + 3.0) == REPEAT


def test_no_blind_guess_without_a_challenge_or_credentials_or_after_a_loss() -> None:
    """A nonce that Asterisk never sent, a question, an answered request and lost answers show nothing."""
    for challenged, credentials, heard, lost in (
        (False, True, False, False),
        (True, False, False, False),
        (True, True, True, False),
        (True, True, False, True),
    ):
        talk = Conversations()
        talk.ask(asks(1, credentials=credentials), 0.0, challenged=challenged)
        talk.ask(asks(1, credentials=credentials), 0.5, challenged=challenged)  # a retransmission
        if heard:
            answered(talk, refusal(1, status=200), ONE, 0.6)
        if lost:
            talk.forget_silence()
        talk.ask(asks(1, sender=OTHER), 1.0)
        answered(talk, refusal(1), OTHER, 1.0)
        assert blind(talk, SILENCE + 1.0) == []


def test_a_guess_with_a_diverted_answer_is_blind_soon() -> None:
    """No other sender has to be answered; an answer in time, or one more loss, shows that it is not blind."""
    talk = Conversations()
    for sequence in (1, 2):
        request = evolve(asks(sequence), diverted=True)
        talk.ask(request, 0.0, challenged=True)
    assert answered(talk, refusal(2), ONE, 0.1) is not None
    assert blind(talk, DIVERTED_SILENCE - 0.1) == []
    assert blind(talk, DIVERTED_SILENCE) == [1]
    assert blind(talk, SILENCE) == []
    talk.ask(evolve(asks(3), diverted=True), 1.0, challenged=True)
    talk.forget_silence()
    assert blind(talk, SILENCE + 1.0) == []


def test_each_redirected_datagram_without_an_answer_is_found() -> None:
    """Also one without credentials, with an invented nonce, or sent again: Asterisk works for each."""
    talk = Conversations()
    question = evolve(asks(1, credentials=False), redirected=True)
    invented = evolve(asks(2), redirected=True)
    for request in (question, evolve(asks(3), diverted=True), invented, question):
        talk.ask(request, 0.0)
    talk.forget_silence()  # no honest sender waits for an answer elsewhere
    assert blind(talk, DIVERTED_SILENCE) == [1, 2, 1]
    assert blind(talk, SILENCE) == []


def test_a_closed_window_diverts_what_came_before_it() -> None:
    """The open guesses of the connection are blind soon, each once; questions and UDP are left out."""
    talk = Conversations()
    stream = evolve(asks(1), transport=Transport.TCP)
    closed = evolve(stream, call_ids=(), sequences=(), credentials=False, digest=b"", diverted=True)
    talk.ask(closed, 0.0)
    for sequence in (1, 2):
        talk.ask(evolve(asks(sequence), transport=Transport.TCP), 0.0, challenged=True)
    talk.ask(evolve(asks(3, credentials=False), transport=Transport.TCP), 0.0, challenged=True)
    talk.ask(evolve(asks(4), transport=Transport.TCP), 0.0)
    talk.ask(evolve(asks(5), transport=Transport.TCP, port=9), 0.0, challenged=True)
    talk.ask(asks(6), 0.0, challenged=True)
    assert answered(talk, evolve(refusal(1), transport=Transport.TCP), ONE, 0.1) is not None
    talk.ask(evolve(closed, transport=Transport.UDP, port=5062), 0.1)
    assert blind(talk, 1.0) == []
    talk.ask(closed, 1.0)
    talk.ask(evolve(asks(7), transport=Transport.TCP, diverted=True), 1.0, challenged=True)
    assert blind(talk, 1.0) == [2]
    assert blind(talk, 1.0 + DIVERTED_SILENCE) == [7]


def test_nobody_is_answered_for_long() -> None:
    """A request that waits longer than a conversation is remembered is forgotten."""
    talk = Conversations()
    talk.ask(asks(1), 0.0, challenged=True)
    assert blind(talk, LIFE) == []
    talk.ask(asks(1, sender=OTHER), LIFE)
    answered(talk, refusal(1), OTHER, LIFE)
    assert blind(talk, LIFE) == []


def test_memory_is_bounded() -> None:
    """The oldest requests are forgotten, of all senders and of one conversation."""
    talk = Conversations(most=10)
    for number in range(20):
        talk.ask(evolve(asks(number), call_ids=(b"%d" % number,)), 0.0)
    assert len(talk) == 10
    assert answered(talk, evolve(refusal(9), call_id=b"9"), ONE, 0.0) is None
    assert answered(talk, evolve(refusal(10), call_id=b"10"), ONE, 0.0) is not None
    talk.expire(LIFE)
    assert len(talk) == 0

    talk = Conversations()
    for number in range(MOST_REQUESTS + 1):
        talk.ask(asks(1, text=b"%d" % number), 1.0)
    assert answered(talk, refusal(1), ONE, 1.0) == (asks(1, text=b"1").digest, True)

    talk.expire(1.0 + LIFE)
    assert len(talk) == 0


def test_a_conversation_of_open_guesses_ends_before_its_latest_question() -> None:
    """Behind as many open guesses as are kept, a question is forgotten at once; its age comes later."""
    talk = Conversations()
    for number in range(MOST_REQUESTS):
        talk.ask(asks(number), 0.0)
    talk.ask(asks(MOST_REQUESTS, credentials=False), 1.0)
    talk.expire(LIFE)
    talk.expire(LIFE + 1.0)
    assert len(talk) == 0
    assert answered(talk, refusal(1), ONE, LIFE + 1.0) is None


def test_questions_behind_a_guess_do_not_push_it_out() -> None:
    """Of a conversation, the oldest requests that are no open guesses are forgotten first."""
    for credentials in (False, True):
        talk = Conversations()
        talk.ask(asks(1), 0.0)
        talk.ask(asks(2), 0.0)
        answered(talk, refusal(2), ONE, 0.0)
        for number in range(3, MOST_REQUESTS + 3):
            talk.ask(asks(number, credentials=credentials), 0.0)
        first = 1 if not credentials else 3  # of guesses alone, the oldest is forgotten
        assert answered(talk, refusal(1), ONE, 0.0) == (asks(first).digest, True)


def test_the_latest_request_of_a_call_id_is_known() -> None:
    """As long as it is remembered, with the time since when its sender alone has used the Call-ID."""
    talk = Conversations(most=3)
    assert asker(talk, b"c") is None
    talk.ask(asks(1), 1.0)
    assert asker(talk, b"c") == (ONE, -inf)
    talk.ask(asks(1, sender=OTHER), 2.0)
    talk.ask(asks(2, sender=OTHER), 3.0)
    assert asker(talk, b"c") == (OTHER, 2.0)
    for number in (1, 2):
        talk.ask(evolve(asks(number), call_ids=(b"d",)), 4.0)
    assert asker(talk, b"c") == (OTHER, 2.0)
    talk.ask(evolve(asks(1), call_ids=(b"e",)), 5.0)
    assert asker(talk, b"c") is None


def test_the_latest_request_with_a_nonce_is_known() -> None:
    """As long as it is remembered; a later request with the nonce takes its place."""
    talk = Conversations(most=2)
    assert talk.latest_with(b"n") is None
    for number, sender in enumerate((ONE, OTHER)):
        talk.ask(asks(1, sender=sender), float(number), b"n")
        latest = talk.latest_with(b"n")
        assert latest is not None
        assert latest.remote == Endpoint(sender, 5062, Transport.UDP)
    talk.ask(asks(3), 3.0, b"other")
    assert talk.latest_with(b"n") is not None
    talk.ask(asks(4), 4.0)
    assert talk.latest_with(b"n") is None


def asker(talk: Conversations, call_id: bytes) -> tuple[Address, float] | None:
    """Return who used a Call-ID last, and since when it alone does."""
    latest = talk.latest(call_id)
    return None if latest is None else (latest.request.address, latest.shared)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("asks"), st.integers(1, 3), st.booleans(), st.sampled_from([b"a", b"b"])),
        st.tuples(st.just("answers"), st.sampled_from([1, 2, 3, 4, None]), st.sampled_from([200, 401, 403])),
    ),
    max_size=40,
)


class Naive:
    """All requests in a list, searched from the first one each time."""

    def __init__(self) -> None:
        self.asked: list[CopiedRequest] = []
        self.answers: dict[bytes, int] = {}  # by request, the status of its answer
        self.repeats: Counter[bytes] = Counter()

    def ask(self, request: CopiedRequest) -> None:
        """Append a new request."""
        if request in self.asked:
            self.repeats[request.digest] += 1
        else:
            self.asked.append(request)

    def answer(self, answer: CopiedAnswer) -> Told | None:
        """Find the request of an answer: by its number; a refusal's else the oldest guess."""
        same = [one for one in self.asked if answer.sequence in one.sequences]
        answered = [one for one in same if one.digest in self.answers]
        questions, guesses = self._open(same)
        if answer.status == 401:
            order = [*guesses, *questions, *reversed(answered)] if same else self._open(self.asked)[1]
        else:
            again = [one for one in answered if self.answers[one.digest] != 401 or self.repeats[one.digest]]
            order = [*questions, *again, *guesses, *answered]
        if not order:
            return None
        if order[0] in answered:
            self.repeats[order[0].digest] -= self.repeats[order[0].digest] > 0
            return REPEAT
        self.answers[order[0].digest] = answer.status
        return order[0].digest, order[0].credentials and answer.status != 200

    def _open(self, requests: list[CopiedRequest]) -> tuple[list[CopiedRequest], list[CopiedRequest]]:
        """Return the requests without an answer: those without credentials, and the others."""
        left = [one for one in requests if one.digest not in self.answers]
        return [one for one in left if not one.credentials], [one for one in left if one.credentials]


@given(STEPS)
def test_it_agrees_with_a_naive_model(steps: list[tuple[object, ...]]) -> None:
    """Any order of requests, repeats and answers gives what a plain search of all requests gives."""
    talk, naive = Conversations(), Naive()
    for step in steps:
        if step[0] == "asks":
            request = asks(step[1], credentials=bool(step[2]), text=bytes(step[3]) + b"%d" % bool(step[2]))  # type: ignore[arg-type, call-overload]
            talk.ask(request, 0.0)
            naive.ask(request)
        else:
            answer = refusal(step[1], status=step[2])  # type: ignore[arg-type]
            assert answered(talk, answer, ONE, 0.0) == naive.answer(answer)


# -- by TCP


def by_tcp(request: CopiedRequest, port: int = 5062) -> CopiedRequest:
    """Return the same request by TCP."""
    return evolve(request, transport=Transport.TCP, port=port)


def tcp_refusal(sequence: int | None, *, call_id: bytes = b"c", port: int = 5062) -> CopiedAnswer:
    """Return an answer on a TCP connection."""
    return evolve(refusal(sequence), transport=Transport.TCP, call_id=call_id, port=port)


UNREAD = CopiedRequest(ONE, 5062, (), (), unread=True, transport=Transport.TCP)


def test_a_connection_is_one_conversation() -> None:
    """An answer belongs to a request of the same connection and Call-ID; else to the oldest guess."""
    talk = Conversations()
    for request in (asks(1), evolve(asks(1, text=b"d"), call_ids=(b"d",)), asks(2, text=b"e")):
        talk.ask(by_tcp(request), 0.0)
    assert answered(talk, tcp_refusal(1, port=5063), ONE, 0.0) is None
    assert answered(talk, refusal(1), ONE, 0.0) is None
    assert answered(talk, tcp_refusal(1, call_id=b"d"), ONE, 0.0) == (asks(1, text=b"d").digest, True)
    assert answered(talk, tcp_refusal(1, call_id=b"?"), ONE, 0.0) == (asks(1).digest, True)
    assert asker(talk, b"c") == (ONE, -inf)
    assert not talk.has_asked(ONE, b"c", 0.0)


def test_a_cut_answer_belongs_to_the_oldest_guess() -> None:
    """Without Call-ID and number it answers no question."""
    talk = Conversations()
    talk.ask(by_tcp(asks(1, credentials=False)), 0.0)
    talk.ask(by_tcp(asks(2)), 0.0)
    assert answered(talk, tcp_refusal(None, call_id=b""), ONE, 0.0) == (asks(2).digest, True)
    assert answered(talk, tcp_refusal(None, call_id=b""), ONE, 0.0) is None


def test_no_question_explains_a_refusal_on_an_unread_connection() -> None:
    """Unread data may be a guess with the same number. A request with credentials is still one."""
    talk = Conversations()
    talk.ask(by_tcp(asks(1, credentials=False)), 0.0)
    talk.ask(by_tcp(asks(2)), 0.0)
    talk.ask(UNREAD, 1.0)
    assert answered(talk, tcp_refusal(1), ONE, 1.0) is None
    assert answered(talk, tcp_refusal(2), ONE, 1.0) == (asks(2).digest, True)
    assert answered(talk, tcp_refusal(2), ONE, 1.0) is None


def test_by_tcp_each_copy_of_a_request_has_one_answer() -> None:
    """One more refusal belongs to a request that was read wrongly, unless a 1xx promised more answers."""
    talk = Conversations()
    for _ in range(2):
        talk.ask(by_tcp(asks(1)), 0.0)
    assert answered(talk, tcp_refusal(1), ONE, 0.0) == (asks(1).digest, True)
    assert answered(talk, tcp_refusal(1), ONE, 0.0) == REPEAT
    assert answered(talk, tcp_refusal(1), ONE, 0.0) is None
    talk.ask(by_tcp(asks(3)), 0.0)
    talk.ask(by_tcp(asks(2)), 0.0)
    assert answered(talk, tcp_refusal(1), ONE, 0.0) == (asks(3).digest, True)
    for status in (100, 183, 403):
        found = answered(talk, evolve(tcp_refusal(2), status=status), ONE, 0.0)
        assert found == ((asks(2).digest, False) if status == 100 else REPEAT)


def test_by_tcp_an_answer_that_is_no_refusal_comes_once() -> None:
    """Asterisk repeats none by itself, so a second one belongs to a request that was read wrongly."""
    talk = Conversations()
    talk.ask(by_tcp(asks(1, credentials=False)), 0.0)
    accepted = evolve(tcp_refusal(1), status=200)
    assert answered(talk, accepted, ONE, 0.0) == (asks(1, credentials=False).digest, False)
    assert answered(talk, accepted, ONE, 0.1) is None


def test_an_unread_connection_of_which_nothing_is_known_is_not_remembered() -> None:
    """It has no question that could explain a refusal."""
    talk = Conversations()
    talk.ask(UNREAD, 0.0)
    assert (len(talk), answered(talk, tcp_refusal(1), ONE, 0.0)) == (0, None)


def test_on_an_unread_connection_each_challenge_after_the_first_shows_a_guess() -> None:
    """A 403 is the answer to a guess, so a challenge after it may answer a question again."""
    talk = Conversations()
    talk.ask(UNREAD, 0.0)
    statuses = [401, 401, 407, 403, 401, 403, 403, 401, 401]
    found = [talk.shows_guess(evolve(tcp_refusal(1), status=status), ONE) for status in statuses]
    assert found == [False, True, True, False, False, False, False, False, True]
    assert not talk.shows_guess(evolve(tcp_refusal(1), accepted=True), ONE)
    assert not talk.shows_guess(refusal(1), ONE)
    assert not talk.shows_guess(tcp_refusal(1, port=5063), ONE)


def test_a_new_connection_of_the_same_port_is_read_again() -> None:
    """Its challenges show no guess by themselves."""
    talk = Conversations()
    talk.ask(UNREAD, 0.0)
    assert not talk.shows_guess(tcp_refusal(1), ONE)
    talk.ask(by_tcp(asks(1, credentials=False)), 1.0)
    assert not talk.shows_guess(tcp_refusal(1), ONE)


def test_the_oldest_unread_connection_is_forgotten_first() -> None:
    """The number of connections is bounded; a fragment by UDP is not one."""
    talk = Conversations()
    talk.ask(evolve(UNREAD, transport=Transport.UDP), 0.0)
    for port in range(MOST_UNREAD_CONNECTIONS + 1):
        talk.ask(evolve(UNREAD, port=port), 0.0)
        talk.shows_guess(tcp_refusal(1, port=port), ONE)
    assert not talk.shows_guess(tcp_refusal(1, port=0), ONE)
    assert talk.shows_guess(tcp_refusal(1, port=1), ONE)
