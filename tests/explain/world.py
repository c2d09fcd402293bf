"""Hand-made facts of 192.0.2.1 for the tests."""

from ipaddress import ip_address, ip_network
from typing import Any

from attrs import evolve
from tests.support.attempts import attempts, ban_of

from ringfence.detect.judgement import AddressSummary, Count
from ringfence.detect.rules import RULES, Rule
from ringfence.explain.facts import ActiveBan, NetworkFacts
from ringfence.firewall.contract import Element
from ringfence.lists.manager import Holder
from ringfence.values.attempt import Attempt, Proof
from ringfence.values.ban import Ban, Scope
from ringfence.values.entry import ListEntry, ListKind
from ringfence.values.friend import Friend, FriendReason

NOW = 1_700_000_100.0
HERE = ip_network("192.0.2.1")
ADDRESS = ip_address("192.0.2.1")
RULE = {rule.name: rule for rule in RULES}


def known(**changed: Any) -> NetworkFacts:  # noqa: ANN401 - whatever is known
    """Return the facts of an address without attempts, with these changes."""
    return NetworkFacts(**({"network": HERE, "subject": HERE, "now": NOW, "story": story()} | changed))


def story(*counts: Count, made: tuple[Attempt, ...] = (), outage_mode: bool = False) -> AddressSummary:
    """Return the detector's knowledge, with nothing counted except ``counts``."""
    told = {count.rule.name: count for count in counts}
    every = tuple(told.get(rule.name, count(rule, 0)) for rule in RULES)
    return AddressSummary(
        ADDRESS,
        HERE,
        exempt=False,
        friends=(),
        former=(),
        attempts=made,
        counts=every,
        outage_mode=outage_mode,
    )


def count(rule: Rule, have: int, proven: int = 0, *, number: int | None = None) -> Count:
    """Return the progress of a rule; the first attempt leaves the window in three minutes."""
    number = number if number is not None else rule.strangers or rule.attempts
    return Count(rule, number, have, proven, NOW + 180.0 if have else None, rule.window)


def proven(number: int) -> tuple[Attempt, ...]:
    """Return this number of proven attempts, also reported by a log."""
    told = ("ami", "log:/var/log/ringfence/ringfence")
    return tuple(evolve(one, proof=Proof.NONCE, sources=told) for one in attempts(number))


def ban(network: str = "192.0.2.1", made: tuple[Attempt, ...] = (), **changed: object) -> Ban:
    """Return a ban of an hour that began a minute ago."""
    return evolve(ban_of(network, NOW - 60.0, made=made), **changed)  # type: ignore[arg-type]


def running(of: Ban, packets: int = 7, *, in_kernel: bool = True, left: float | None = None) -> ActiveBan:
    """Return an active ban."""
    left = of.expires - NOW if left is None else left
    element = Element(of.network, left, packets, packets * 60, of.scope) if in_kernel else None
    return ActiveBan(of.network, of.scope, of, element)


def holder(side: ListKind, what: str, network: str = "", **changed: Any) -> Holder:  # noqa: ANN401 - of an entry
    """Return a list entry that contains the address."""
    entry = evolve(ListEntry(side, what, "", 0.0), **changed)
    return Holder(entry, ip_network(network or what))


def friend(
    tie: FriendReason = FriendReason.AUTHENTICATED, account: str = "204", until: float = NOW + 3_600.0
) -> Friend:
    """Return a reason why it is a friend."""
    return Friend("pbx", ADDRESS, account, tie, NOW - 7_200.0, NOW - 60.0, until)


NARROW = Scope.SIP_UDP
