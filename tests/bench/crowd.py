"""A million addresses in an hour, one attempt each, in a process with every module of the daemon.

    python -m tests.bench.crowd

The hour passes as fast as the processor allows, because time is an argument of the detector. It prints one
line of JSON.
"""

import importlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, ip_address
from itertools import islice

from attrs import evolve
from tests.support.process import resident

from ringfence.detect.detector import Detector
from ringfence.detect.friends import Friends
from ringfence.detect.judgement import Effect, Judgement
from ringfence.detect.rules import RULES, Rule
from ringfence.guard.process import tune_collector
from ringfence.parse.ami import AmiDecoder
from ringfence.values.event import SecurityEvent, SourceId
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.network import Address

MILLION = 1_000_000
HOUR = 3_600.0
THRESHOLD = 5
CHOSEN = 20
ATTACKERS = ("198.51.100.7", "198.51.100.8")
FRIENDS = 1_000
DECOY = "boss"
"""An account that no phone uses, so that the rule `decoy` has one to look for."""
BANNER = b"Asterisk Call Manager/11.0.0\r\n"
_PART = 50  # packets at a time


def every_rule(attempts: int = 0) -> tuple[Rule, ...]:
    """Return all rules, each enabled, with a threshold of ``attempts`` unless that is 0."""
    return tuple(
        evolve(
            rule,
            enabled=True,
            attempts=attempts or rule.attempts,
            accounts=rule.accounts if rule.accounts is None else frozenset({DECOY}),
        )
        for rule in RULES
    )


def a_thousand() -> Friends:
    """Return a thousand friends."""
    known = Friends()
    for number in range(FRIENDS):
        account, address = f"phone{number}", IPv4Address("192.0.2.0") + 7 * number
        known.add(Friend("pbx", address, account, FriendReason.AUTHENTICATED, 0.0, 0.0, 1e12))
    return known


_PACKET = (
    b"Event: ChallengeResponseFailed\r\nPrivilege: security,all\r\n"
    b"EventTV: %s+0000\r\nSeverity: Error\r\nService: PJSIP\r\nEventVersion: 1\r\n"
    b"AccountID: %d\r\nSessionID: %s\r\nLocalAddress: IPV4/UDP/198.18.0.1/5060\r\n"
    b"RemoteAddress: IPV4/%s/%s/5060\r\n"
    b"Challenge: 1700000000/0123456789abcdef0123456789abcdef\r\nResponse: %032x\r\nExpectedResponse: \r\n\r\n"
)


def packet(address: Address, number: int, transport: bytes = b"UDP") -> bytes:
    """Return AMI's event about one guess."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S.000", time.gmtime()).encode()
    session = b"%032x@phone" % (number * 0x9E3779B97F4A7C15)
    account = 1_000 + number % 9_000
    return _PACKET % (moment, account, session, transport, str(address).encode(), number)


def strangers() -> Iterator[IPv4Address]:
    """Yield distinct addresses of the whole Internet, in no order."""
    value = 1
    while True:
        value = value * 1_664_525 + 1_013_904_223 & 0xFFFFFFFF  # each value once
        if 11 <= value >> 24 < 100 or (128 <= value >> 24 < 192 and value >> 24 not in {169, 172}):
            yield IPv4Address(value)


def guesses(address: str, transport: bytes, number: int = THRESHOLD) -> Iterator[bytes]:
    """Yield ``number`` guesses of one address."""
    return (packet(ip_address(address), 2_000_000 + guess, transport) for guess in range(number))


def chosen() -> list[str]:
    """Return some of the addresses, evenly from first to last, to check whether they are remembered."""
    return [str(one) for one in islice(strangers(), 7, MILLION, MILLION // CHOSEN)]


@dataclass
class Crowd:
    """The result of the crowd: memory, the number of chosen addresses remembered, and the bans."""

    memory: int
    remembered: int
    stopped: list[int]
    others: int


def hour() -> Crowd:
    """Run the hour."""
    for name in ("ringfence.guard.service", "ringfence.guard.daemon"):  # every module of the daemon
        importlib.import_module(name)
    tune_collector()
    decoder = AmiDecoder(SourceId("pbx", "ami"))
    decoder.receive(BANNER, 0.0)
    detector = Detector(every_rule(), friends=a_thousand())
    banned: dict[str, int] = {}

    def receive(packets: Iterator[bytes], now: float) -> None:
        for item in decoder.receive(b"".join(packets), now):
            if isinstance(item, SecurityEvent):
                for effect in detector.observe(item, now):
                    hold(detector, effect, now)
                    if isinstance(effect, Judgement) and effect.decision is not None:
                        banned[str(effect.attempt.address)] = len(effect.decision.attempts)

    crowd = strangers()
    for start in range(0, MILLION, _PART):
        now = HOUR * start / MILLION
        receive((packet(one, start + n) for n, one in enumerate(islice(crowd, _PART))), now)
        if start == MILLION // 2:
            receive(guesses(ATTACKERS[0], b"TCP"), now)
        if start % 1_000 == 0:
            detector.tick(now)
    found = Crowd(resident(os.getpid()), 0, [], 0)
    receive(guesses(ATTACKERS[1], b"TCP"), HOUR)
    found.remembered = sum(len(detector.summary_of(ip_address(one), HOUR).attempts) for one in chosen())
    found.stopped = [banned.get(attacker, 0) for attacker in ATTACKERS]
    found.others = len(banned.keys() - {*ATTACKERS})
    return found


def hold(detector: Detector, effect: Effect, now: float) -> None:
    """Update the detector as the daemon does when it bans."""
    if isinstance(effect, Judgement) and effect.decision is not None:
        decision = effect.decision
        detector.bans.assume(decision.subject, decision.scope, now + decision.rule.ban_for(0))


if __name__ == "__main__":
    print(json.dumps(asdict(hour())))
