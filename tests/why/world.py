"""What is known of 192.0.2.1, made by hand, for tests of what is said about it."""

from ipaddress import ip_address, ip_network
from typing import Any

from attrs import evolve
from tests.support.attempts import attempts, ban_of

from ringfence.detect.detector import Story
from ringfence.detect.judge import Count
from ringfence.detect.rules import RULES, Rule
from ringfence.firewall.contract import Element
from ringfence.lists.holding import Holder
from ringfence.model import Attempt, Ban, Friend, ListEntry, Proof, Scope, Side, Tie
from ringfence.why.known import Known, Running

NOW = 1_700_000_100.0
HERE = ip_network("192.0.2.1")
ADDRESS = ip_address("192.0.2.1")
RULE = {rule.name: rule for rule in RULES}


def known(**changed: Any) -> Known:  # noqa: ANN401 - whatever is known
    """Give what is known of a stranger who did nothing, changed as the test says."""
    return Known(**({"network": HERE, "subject": HERE, "now": NOW, "story": story()} | changed))


def story(*counts: Count, made: tuple[Attempt, ...] = (), braked: bool = False) -> Story:
    """Give what the detector knows: of every rule that nothing is counted, but for ``counts``."""
    told = {count.rule.name: count for count in counts}
    every = tuple(told.get(rule.name, count(rule, 0)) for rule in RULES)
    return Story(
        ADDRESS, HERE, never=False, friends=(), former=(), attempts=made, counts=every, braked=braked
    )


def count(rule: Rule, have: int, proven: int = 0, *, number: int | None = None) -> Count:
    """Give how near a rule is; the first attempt goes out of the window in three minutes."""
    number = number if number is not None else rule.strangers or rule.attempts
    return Count(rule, number, have, proven, NOW + 180.0 if have else None)


def proven(number: int) -> tuple[Attempt, ...]:
    """Give so many attempts that are proven, told by a log too."""
    told = ("ami", "log:/var/log/ringfence/ringfence")
    return tuple(evolve(one, proof=Proof.NONCE, sources=told) for one in attempts(number))


def ban(network: str = "192.0.2.1", made: tuple[Attempt, ...] = (), **changed: object) -> Ban:
    """Give a ban of an hour that began a minute ago."""
    return evolve(ban_of(network, NOW - 60.0, made=made), **changed)  # type: ignore[arg-type]


def running(of: Ban, packets: int = 7, *, in_kernel: bool = True, left: float | None = None) -> Running:
    """Give a ban that runs."""
    left = of.expires - NOW if left is None else left
    element = Element(of.network, left, packets, packets * 60, of.scope) if in_kernel else None
    return Running(of.network, of.scope, of, element)


def holder(side: Side, what: str, network: str = "", **changed: Any) -> Holder:  # noqa: ANN401 - of an entry
    """Give an entry of a list that holds it."""
    entry = evolve(ListEntry(side, what, "", 0.0), **changed)
    return Holder(entry, ip_network(network or what))


def friend(tie: Tie = Tie.AUTHENTICATED, account: str = "204", until: float = NOW + 3_600.0) -> Friend:
    """Give why it is a friend."""
    return Friend("pbx", ADDRESS, account, tie, NOW - 7_200.0, NOW - 60.0, until)


NARROW = Scope.SIP_UDP
