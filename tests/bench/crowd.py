"""A million addresses in an hour, one attempt each, in a process with all that the daemon loads.

    python -m tests.bench.crowd

The hour goes by as fast as the processor can, since the detector takes its time as an argument. Prints one
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

from ringfence.calm import calm_collector
from ringfence.detect.detector import Detector, Judgement
from ringfence.detect.friends import Friends
from ringfence.detect.rules import RULES, Rule
from ringfence.model import Address, Friend, SecurityEvent, SourceId, Tie
from ringfence.parse.ami import AmiDecoder

MILLION = 1_000_000
HOUR = 3_600.0
THRESHOLD = 5
CHOSEN = 20
ATTACKERS = ("198.51.100.7", "198.51.100.8")
FRIENDS = 1_000
DECOY = "boss"
"""An account that exists for nobody, so that the rule `decoy` has something to look for."""
BANNER = b"Asterisk Call Manager/11.0.0\r\n"
_PART = 50  # packets at a time


def every_rule(attempts: int = 0) -> tuple[Rule, ...]:
    """Give all rules, each on; with so many attempts where a number is given."""
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
    """Give a thousand phones that are friends."""
    known = Friends()
    for number in range(FRIENDS):
        account, address = f"phone{number}", IPv4Address("192.0.2.0") + 7 * number
        known.meet(Friend("pbx", address, account, Tie.AUTHENTICATED, 0.0, 0.0, 1e12))
    return known


_PACKET = (
    b"Event: ChallengeResponseFailed\r\nPrivilege: security,all\r\n"
    b"EventTV: %s+0000\r\nSeverity: Error\r\nService: PJSIP\r\nEventVersion: 1\r\n"
    b"AccountID: %d\r\nSessionID: %s\r\nLocalAddress: IPV4/UDP/198.18.0.1/5060\r\n"
    b"RemoteAddress: IPV4/%s/%s/5060\r\n"
    b"Challenge: 1700000000/0123456789abcdef0123456789abcdef\r\nResponse: %032x\r\nExpectedResponse: \r\n\r\n"
)


def packet(address: Address, number: int, transport: bytes = b"UDP") -> bytes:
    """Give what AMI tells of one guess."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S.000", time.gmtime()).encode()
    session = b"%032x@phone" % (number * 0x9E3779B97F4A7C15)
    account = 1_000 + number % 9_000
    return _PACKET % (moment, account, session, transport, str(address).encode(), number)


def strangers() -> Iterator[IPv4Address]:
    """Give distinct addresses all over the Internet, in no order."""
    value = 1
    while True:
        value = value * 1_664_525 + 1_013_904_223 & 0xFFFFFFFF  # each value once
        if 11 <= value >> 24 < 100 or (128 <= value >> 24 < 192 and value >> 24 not in {169, 172}):
            yield IPv4Address(value)


def guesses(address: str, transport: bytes, number: int = THRESHOLD) -> Iterator[bytes]:
    """Give so many guesses of one address."""
    return (packet(ip_address(address), 2_000_000 + guess, transport) for guess in range(number))


def chosen() -> list[str]:
    """Give some of them, from the first to the last: to see whether they are remembered."""
    return [str(one) for one in islice(strangers(), 7, MILLION, MILLION // CHOSEN)]


@dataclass
class Crowd:
    """A process that has heard of all: its memory, how many of those chosen it remembers, who was banned."""

    memory: int
    remembered: int
    stopped: list[int]
    others: int


def hour() -> Crowd:
    """Let the hour go by."""
    for name in ("ringfence.service", "ringfence.daemon"):  # all that the daemon loads
        importlib.import_module(name)
    calm_collector()
    decoder = AmiDecoder(SourceId("pbx", "ami"))
    decoder.feed(BANNER, 0.0)
    detector = Detector(every_rule(), friends=a_thousand())
    banned: dict[str, int] = {}

    def hear(packets: Iterator[bytes], now: float) -> None:
        for item in decoder.feed(b"".join(packets), now):
            if isinstance(item, SecurityEvent):
                hold(detector, judgement := detector.observe(item, now), now)
                if judgement is not None and judgement.decision is not None:
                    banned[str(judgement.attempt.address)] = len(judgement.decision.attempts)

    crowd = strangers()
    for start in range(0, MILLION, _PART):
        now = HOUR * start / MILLION
        hear((packet(one, start + n) for n, one in enumerate(islice(crowd, _PART))), now)
        if start == MILLION // 2:
            hear(guesses(ATTACKERS[0], b"TCP"), now)
        if start % 1_000 == 0:
            detector.tend(now)
    found = Crowd(resident(os.getpid()), 0, [], 0)
    hear(guesses(ATTACKERS[1], b"TCP"), HOUR)
    found.remembered = sum(len(detector.story(ip_address(one), HOUR).attempts) for one in chosen())
    found.stopped = [banned.get(attacker, 0) for attacker in ATTACKERS]
    found.others = len(banned.keys() - {*ATTACKERS})
    return found


def hold(detector: Detector, judgement: Judgement | None, now: float) -> None:
    """Do what the daemon does to the detector when it bans."""
    if judgement is not None and judgement.decision is not None:
        decision = judgement.decision
        detector.hold(decision.subject, now + decision.rule.ban_for(0), decision.scope)


if __name__ == "__main__":
    print(json.dumps(asdict(hour())))
