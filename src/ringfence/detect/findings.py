"""Findings: what ``attribution`` concludes from one input of a source. The detector handles each of them.

They are new attempts, new facts about known attempts, and logins through SIP proxies.
"""

from collections.abc import Sequence

from attrs import field

from ringfence.detect.sessions import UNKNOWN_ACCOUNT, fingerprint_in
from ringfence.values import fast
from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.ban import Scope
from ringfence.values.event import AMI, EventKind, SecurityEvent, Service
from ringfence.values.network import Address


@fast.frozen
class AttributedAttempt:
    """An attempt, and the time at which it counts (monotonic seconds).

    ``forged``: a sender forged the log line: the kernel copied no challenge, but would have copied a true
    one. ``claimed`` is the scope of the ban if this attempt, unproven, leads to a ban: SIP_TCP if the attempt
    came through a SIP proxy by TCP or TLS, otherwise SIP_UDP. ``port`` is the sender's, 0 if unknown.
    ``copied``: the kernel has copied its request, so its sender has written it. ``fingerprint`` is that of
    its event (:func:`~ringfence.detect.sessions.fingerprint_in`).
    """

    attempt: Attempt
    at: float
    forged: bool = False
    claimed: Scope = Scope.SIP_UDP
    port: int = field(default=0, eq=False)
    copied: bool = field(default=False, eq=False)
    fingerprint: int = field(default=0, eq=False)


@fast.frozen
class DuplicateReport:
    """A report by ``source`` of an attempt that another source has already reported.

    ``address``, ``session`` (a number, 0 if unknown), ``service`` and ``kind`` identify the attempt.
    ``event`` and ``account`` are what this source reports. ``decides``: this source is AMI, so both replace
    what a line of the log reported first, which its sender may have written. ``explains``: ``event`` is the
    reason of an attempt of which a copied packet shows only that Asterisk refused it. A line of the log about
    PJSIP does not explain it while AMI is connected: AMI then reports the reason. ``forged_address`` is the
    wrong address that the request names; None if it names the true one. ``fingerprint`` is that of its event:
    if the attempt has another one, this is a report of another request.
    """

    address: Address
    session: int
    service: Service
    source: str
    event: EventKind
    forged_address: Address | None
    account: str = ""
    decides: bool = False
    kind: AttemptKind = AttemptKind.GUESS
    explains: bool = True
    fingerprint: int = 0


@fast.frozen
class NewProof:
    """A proof that ``address`` really sent all attempts in ``session`` at ``asterisk`` that name it."""

    asterisk: str
    address: Address
    session: int
    proof: Proof


@fast.frozen
class UnprovableGuess:
    """The finding that nothing can show whether a guess really came from ``address``.

    Only this address requested the nonce (of Asterisk's challenge) that the guess repeats. ``elsewhere``: the
    nonce was also sent to another address. Otherwise that is unknown, for example because copies were lost.
    """

    address: Address
    elsewhere: bool = True


@fast.frozen
class ClientLogin:
    """A login through a SIP proxy; ``event`` names the client of the proxy as its sender."""

    event: SecurityEvent


@fast.frozen
class WrongAnswer:
    """A wrong answer to the challenge of an attempt without credentials: the attempt becomes a guess.

    ``address`` and ``session`` (a number) identify the attempt.
    """

    asterisk: str
    address: Address
    session: int


Finding = AttributedAttempt | DuplicateReport | NewProof | UnprovableGuess | ClientLogin | WrongAnswer


def duplicate_report(attempt: Attempt, event: SecurityEvent, tag: int, *, ami: bool) -> Sequence[Finding]:
    """Return the finding that ``event`` is a duplicate report of an attempt, and the proof that it adds.

    ``tag`` is the number of the attempt. If it is 0, no proof is added, because the attempt could not be
    found by its number. A report whose sender is unproven adds no proof. A report about PJSIP adds none
    either: ``proofs`` proves PJSIP's attempts by their session. ``ami``: the AMI of the event's Asterisk is
    connected.
    """
    source, forged, account = event.source.name, attempt.forged_address, attempt.account
    # The address in chan_sip's events may be another one than that of the line.
    certain = source == AMI and event.service is Service.PJSIP and not (event.tampered or event.forgeable)
    decides = certain and account != UNKNOWN_ACCOUNT
    pjsip = event.service is Service.PJSIP
    explains = not (pjsip and event.source.text and ami)
    report = DuplicateReport(
        *(attempt.address, tag, event.service, source, attempt.event, forged, account, decides, attempt.kind),
        explains,
        fingerprint_in(event),
    )
    if attempt.proof is Proof.CLAIMED or pjsip or not tag:
        return (report,)
    return (report, NewProof(attempt.asterisk, attempt.address, tag, attempt.proof))
