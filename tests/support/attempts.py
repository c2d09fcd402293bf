"""Attempts and bans for tests of the code behind the detector."""

from ipaddress import ip_address, ip_network

from attrs import evolve

from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.ban import Ban, Origin
from ringfence.values.event import EventKind, Service, Transport

ATTEMPT = Attempt(
    asterisk="pbx",
    address=ip_address("192.0.2.1"),
    kind=AttemptKind.GUESS,
    proof=Proof.CLAIMED,
    service=Service.PJSIP,
    transport=Transport.UDP,
    account="alice",
    event=EventKind.CHALLENGE_RESPONSE_FAILED,
    time=1_700_000_000.25,
    trusted=True,
)


def attempts(number: int, address: str = "192.0.2.1", account: str = "alice") -> tuple[Attempt, ...]:
    """Return ``number`` attempts of one address, one second apart."""
    return tuple(
        evolve(ATTEMPT, address=ip_address(address), account=account, time=ATTEMPT.time + n)
        for n in range(number)
    )


def ban_of(
    network: str, since: float = 1_000.0, seconds: float = 3_600.0, *, made: tuple[Attempt, ...] = ()
) -> Ban:
    """Return a ban by a rule."""
    return Ban(
        ip_network(network),
        since=since,
        expires=since + seconds,
        rule="guess",
        reason="somebody tries",
        origin=Origin.RULE,
        attempts=made,
    )
