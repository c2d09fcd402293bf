"""Findings of the attribution: new attempts, new facts about known attempts, and logins through SIP proxies.

A finding is what ``attribution`` concludes from one input of a source. The detector handles each finding.
"""

import enum
from collections.abc import Sequence

from ringfence import event_values
from ringfence.model import Address, Attempt, Proof, Scope, SecurityEvent, Service


class Verdict(enum.Enum):
    """Whether a reported attempt is real or forged, by the reports of all sources together."""

    ATTEMPT = enum.auto()  # an attempt, confirmed or not
    FORGED_LINE = enum.auto()  # a forged log line: the wire saw no challenge, but would have seen a true one
    FORGED_HEADER = enum.auto()  # a forged Via: chan_sip's event and its NOTICE line name different addresses


@event_values.frozen
class AttributedAttempt:
    """An attempt, the time at which it counts (monotonic seconds), and the verdict on it.

    ``suspect``: only the wire reported the attempt, and its address is unproven. So the kernel should copy
    the requests of this address, because one of them may contain a proof. ``claimed`` is the scope of the ban
    if this attempt leads to a claimed ban: SIP_TCP if the attempt came through a SIP proxy by TCP or TLS,
    otherwise SIP_UDP.
    """

    attempt: Attempt
    at: float
    verdict: Verdict = Verdict.ATTEMPT
    suspect: bool = False
    claimed: Scope = Scope.SIP_UDP


@event_values.frozen
class DuplicateReport:
    """A report by ``source`` of an attempt that another source has already reported.

    ``address``, ``session`` (a number, 0 if unknown) and ``service`` identify the attempt. ``forged_address``
    is the wrong address that the request names; None if it names the true one.
    """

    address: Address
    session: int
    service: Service
    source: str
    forged_address: Address | None


@event_values.frozen
class NewProof:
    """A proof that ``address`` really sent all attempts in ``session`` at ``asterisk`` that name it."""

    asterisk: str
    address: Address
    session: int
    proof: Proof


@event_values.frozen
class UnprovableGuess:
    """A guess of ``address`` that nothing can prove.

    Only this address requested the nonce of the guess, but the nonce was also sent to another address.
    """

    address: Address


@event_values.frozen
class ClientLogin:
    """A login through a SIP proxy; ``event`` names the client of the proxy as its sender."""

    event: SecurityEvent


Finding = AttributedAttempt | DuplicateReport | NewProof | UnprovableGuess | ClientLogin


def duplicate_report(attempt: Attempt, event: SecurityEvent, tag: int) -> Sequence[Finding]:
    """Return the finding that ``event`` is a duplicate report of an attempt, and the proof that it adds.

    ``tag`` is the number of the attempt. If it is 0, no proof is added, because the attempt could not be
    found by its number. A claimed report adds no proof. A report about PJSIP adds none either: ``proofs``
    proves PJSIP's attempts by their session.
    """
    report = DuplicateReport(attempt.address, tag, event.service, event.source.name, attempt.forged_address)
    if attempt.proof is Proof.CLAIMED or event.service is Service.PJSIP or not tag:
        return (report,)
    return (report, NewProof(attempt.asterisk, attempt.address, tag, attempt.proof))
