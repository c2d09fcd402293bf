"""Faults in which guesses count, and for whom: the findings by their letters, and some more."""
# ruff: noqa: ANN401 - a replaced function may be any

from collections.abc import Iterator
from typing import Any

from attrs import evolve
from tests.judge.asterisk import Act
from tests.judge.fault import Change, Fault
from tests.judge.worlds import AMI_FIRST, ATTACKERS, LAMPS, VICTIM

from ringfence.values.attempt import Proof
from ringfence.values.event import AMI, Service, Transport

_A = ATTACKERS[0]
_CONVERSATIONS = "ringfence.detect.conversation:Conversations"
_FORBIDDEN = 403


def _not_blind(transport: Transport) -> Change:
    def change(right: Any) -> Any:
        def unanswered(self: Any, now: float) -> Iterator[Any]:
            return (one for one in right(self, now) if one.request.transport is not transport)

        return unanswered

    return change


def _no_guess_at(service: Service) -> Change:
    def change(right: Any) -> Any:
        def answer(self: Any, answer: Any, sender: Any, now: float) -> Any:
            found = right(self, answer, sender, now)
            return evolve(found, guess=False) if found and answer.service is service else found

        return answer

    return change


def _each_second_is_a_duplicate(right: Any) -> Any:
    def match(self: Any, source: Any, now: float) -> Any:
        tag = right(self, source, now)
        return self.open[-1][1] if tag is None and len(self.open) % 2 else tag

    return match


def _blames_the_receiver(right: Any) -> Any:
    def settled(self: Any, attempt: Any, nonce: bytes, now: float, **options: Any) -> Any:
        to = self.receivers(nonce, now)
        if attempt.service is Service.PJSIP and to and to[-1] != attempt.address:
            return evolve(attempt, address=to[-1], proof=Proof.NONCE)
        return right(self, attempt, nonce, now, **options)

    return settled


def _any_request_confirms(_right: Any) -> Any:
    def has_asked(self: Any, address: Any, _call_id: bytes, _now: float) -> bool:
        return any(one.request.address == address for _, one in self._order)

    return has_asked


def _each_403_is_a_guess(right: Any) -> Any:
    def answer(self: Any, answer: Any, sender: Any, now: float) -> Any:
        refused = answer.status == _FORBIDDEN
        return right(self, evolve(answer, accepted=False) if refused else answer, sender, now)

    return answer


def _never(_right: Any) -> Any:
    return lambda _self, _event, _now: False


def _nothing_is_a_duplicate(_right: Any) -> Any:
    return lambda _self, _source, _now: None


def _ami_decides_on_any(right: Any) -> Any:
    def reported(kept: Any, report: Any, bit: int, now: float, *, friend: bool) -> Any:
        known = evolve(report, source="", fingerprint=0) if report.source == AMI else report
        return right(kept, known, bit, now, friend=friend)

    return reported


def _counts_for_no_more(_right: Any) -> Any:
    return lambda *_arguments, **_named: False


def _covered(transport: str, order: int) -> tuple[Act, ...]:
    """Return a login, and more guesses of its friend at another account than lead to a ban."""
    return (
        Act("logs in", _A),
        *(Act("covers a guess", _A, transport=transport, order=order) for _ in range(24)),
    )


FAULTS_OF_GUESSES = (
    Fault(
        "a",
        "Hidden guesses by TCP do not count if their answers do not leave.",
        f"{_CONVERSATIONS}.unanswered",
        _not_blind(Transport.TCP),
        (
            Act("asks", _A),  # by UDP: PJSIP's nonce of the same second then proves the address
            *(Act("hides by headers blind", _A, transport="TCP", wait=0.1) for _ in range(4)),
            Act("asks", _A, transport="TCP"),
        ),
    ),
    Fault(
        "b",
        "Hidden guesses by UDP do not count if their answers go to nowhere.",
        f"{_CONVERSATIONS}.unanswered",
        _not_blind(Transport.UDP),
        (*(Act("hides by headers blind", _A) for _ in range(4)), Act("asks", _A)),
    ),
    Fault(
        "c",
        "A guess that two Authorization headers hide from events and log does not count.",
        f"{_CONVERSATIONS}.answer",
        _no_guess_at(Service.PJSIP),
        tuple(Act("hides by headers", _A) for _ in range(5)),
    ),
    Fault(
        "f",
        "Guesses at chan_sip that no event reports do not count.",
        f"{_CONVERSATIONS}.answer",
        _no_guess_at(Service.SIP),
        tuple(Act("lamp", _A) for _ in range(3)),
    ),
    Fault(
        "g",
        "Of the guesses under one Call-ID, each second one does not count.",
        "ringfence.detect.sessions:Attempts.match",
        _each_second_is_a_duplicate,
        tuple(Act("guesses in one call", _A) for _ in range(5)),
    ),
    Fault(
        "h",
        "The receiver of a challenge is blamed for the guess with its nonce.",
        "ringfence.detect.nonces:Nonces.settled",
        _blames_the_receiver,
        tuple(Act("guesses elsewhere", _A, VICTIM) for _ in range(5)),
    ),
    Fault(
        "k",
        "A forged notice counts if its address has asked for anything.",
        f"{_CONVERSATIONS}.has_asked",
        _any_request_confirms,
        (Act("asks", VICTIM), Act("hides and blames", _A, VICTIM)),
    ),
    Fault(
        "l",
        "A phone with the right password is blamed for lamps that it may not see.",
        f"{_CONVERSATIONS}.answer",
        _each_403_is_a_guess,
        tuple(Act("lamp refused", LAMPS) for _ in range(5)),
    ),
    Fault(
        "counting once",
        "Each source's report of a guess counts.",
        "ringfence.detect.sessions:Attempts.match",
        _nothing_is_a_duplicate,
        (Act("guesses", _A, late=2.0),),
    ),
    Fault(
        "a late log",
        "A log line that comes after ten seconds counts again.",
        "ringfence.detect.confirmation:Confirmation.take_overdue",
        _never,
        (Act("guesses", _A, late=11.0),),
    ),
    *(
        Fault(
            f"AMI decides on any, {transport}",
            "AMI's report of a failure at a friend's own account excuses a copied guess at another account.",
            "ringfence.detect.history:_reported",
            _ami_decides_on_any,
            _covered(transport, order=0),
            invariant="C",
        )
        for transport in ("UDP", "TLS")
    ),
    *(
        Fault(
            f"AMI came first, {transport}",
            "A copied guess at another account is taken for the failure that AMI has reported before.",
            "ringfence.detect.history:_counts_for_more",
            _counts_for_no_more,
            _covered(transport, AMI_FIRST),
            invariant="C",
        )
        for transport in ("UDP", "TLS")
    ),
)
