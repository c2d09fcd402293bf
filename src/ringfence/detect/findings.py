"""Findings of the attribution: new attempts, and what is learned of attempts that are known."""

import enum
from collections.abc import Sequence

from ringfence import event_values
from ringfence.model import Address, Attempt, Proof, Scope, SecurityEvent, Service


class Verdict(enum.Enum):
    """The verdict of all sources together on an attempt."""

    ATTEMPT = enum.auto()  # an attempt, confirmed or not
    FORGED_LINE = enum.auto()  # a log line without the challenge that the wire would have seen
    FORGED_HEADER = enum.auto()  # chan_sip's event of an attempt for which the log names another address


@event_values.frozen
class AttributedAttempt:
    """An attempt, the time at which it counts (monotonic seconds), and the verdict on it.

    ``suspect``: only the wire reported the attempt, and its address is unproven. So requests from it should
    be copied. ``claimed`` is the scope of a ban by claims: TCP only for a client of a SIP proxy.
    """

    attempt: Attempt
    at: float
    verdict: Verdict = Verdict.ATTEMPT
    suspect: bool = False
    claimed: Scope = Scope.SIP_UDP


@event_values.frozen
class DuplicateReport:
    """A report by ``source`` of an attempt that another source reported: of ``address`` in ``session``.

    ``forged_address`` is the address that the request itself names, if it is another one.
    """

    address: Address
    session: int
    service: Service
    source: str
    forged_address: Address | None


@event_values.frozen
class NewProof:
    """A proof of the address of all attempts of ``address`` in ``session`` at an Asterisk."""

    asterisk: str
    address: Address
    session: int
    proof: Proof


@event_values.frozen
class UnprovableGuess:
    """A guess of ``address`` with a nonce that was also sent to another address at its request."""

    address: Address


@event_values.frozen
class ClientLogin:
    """A login through a proxy; ``event`` names the client."""

    event: SecurityEvent


Finding = AttributedAttempt | DuplicateReport | NewProof | UnprovableGuess | ClientLogin


def duplicate_report(attempt: Attempt, event: SecurityEvent, tag: int) -> Sequence[Finding]:
    """Return another report of attempt ``tag``, and its better proof. PJSIP's has a session number."""
    report = DuplicateReport(attempt.address, tag, event.service, event.source.name, attempt.forged_address)
    if attempt.proof is Proof.CLAIMED or event.service is Service.PJSIP or not tag:
        return (report,)
    return (report, NewProof(attempt.asterisk, attempt.address, tag, attempt.proof))
