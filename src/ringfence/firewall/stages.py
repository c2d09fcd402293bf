"""The stages of the firewall: what its rules do with packets, as values, in their order.

A *stage* has rules about the packets from remote addresses or about those to them, at one or more hooks of
the kernel. A rule has tests and an act. Both backends write these rules in their dialects, once for each IP
version. A test that cannot match at a hook writes no rule there, and one that matches every packet there
writes no test. :func:`stages` returns the stages of a plan in their order, which is the same at every hook
and with both backends. ``make docs`` prints it in docs/firewall.md.

* **Raw** is before connection tracking. So a ban also stops established connections, and protects a container
  behind DNAT.
* **Allowed networks.** No rule accepts their packets, or returns for them: later rules, and those of the
  administrator, still apply to them.
* **Rejects.** The kernel permits no reject in raw. So if the plan's action is a reject, packets from banned
  addresses are rejected behind connection tracking, before the administrator's filter. (After DNAT, the ports
  are those of the container there.) Packets to banned addresses are dropped in any case, except for the ICMP
  errors or RSTs of the reject itself, which never answer a guess.
* **Packets to a banned address** are dropped because Asterisk still checks the guesses that wait in its
  socket. In a test with 2 000 guesses sent before the ban, 180 to 1 126 were answered if only packets from
  the address were dropped, and 3 to 849 with both directions.
* **Narrow bans.** A sender has often answered its last challenge when the ban takes effect. So a narrow ban
  copies packets before it drops them, with a limit of their own. The nonce in such a packet proves the
  address, and the ban becomes a full one.
* **Interfaces** limit where packets are dropped, and not what is copied to the wire. A packet that arrives
  has no output interface yet. So if interfaces are named, packets routed to banned addresses are dropped
  where they are forwarded, when the wire has its copies.
* **Packets of media** are most of what a PBX receives and sends. So the backends write rules for some ports
  into chains of their own (:func:`runs`), and those about packets to remote addresses where others arrive.
* **Answers.** The wire gets them before those to banned addresses are dropped. Without the challenges that a
  ban drops, it would not know all receivers of a nonce: within a second, PJSIP sends the same nonce to all
  clients of a proxy. Nobody receives the nonce of a dropped challenge, so it cannot prove a wrong address.
  To strangers, all answers by UDP from the SIP ports are copied: a success shows that the request was no
  guess. Of TCP, every segment to a stranger is copied, also one without data: an answer may stand anywhere in
  the stream, and the sender decides where. Segments to friends and allowed networks, and over the loopback
  interface, are copied only if they begin with a refusal, because phones and trunks receive much.
* **Features** add the others. The modules that do describe them.
"""

import enum
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import groupby
from typing import TypeVar

from attrs import field, frozen

from ringfence.firewall import network_lists
from ringfence.firewall.contract import (
    COPIED,
    FRAGMENTS,
    FROM_DENIED,
    BanAction,
    FirewallPlan,
    Fragments,
)
from ringfence.firewall.limits import Table, additions
from ringfence.firewall.network_lists import PASSING, NetworkList
from ringfence.firewall.ports import Ports
from ringfence.values.ban import Scope
from ringfence.values.network import Address


class Position(enum.Enum):
    """The position of a feature's stage (group of rules) among those about the same packets."""

    BEFORE_COPIES = "before requests are copied to the wire"
    LAST = "behind all others"


class Side(enum.StrEnum):
    """The side of a packet on which its remote address is: the sender or the receiver."""

    FROM = "from"
    TO = "to"


class Hook(enum.StrEnum):
    """A hook of the kernel, where rules see packets: two before connection tracking, and two after it.

    Packets that Asterisks in containers send arrive here too, and are forwarded.
    """

    ARRIVING = "prerouting"
    LEAVING = "output"
    INPUT = "input"
    FORWARD = "forward"


class Is(enum.Enum):
    """The tests of a packet that need no parameters, such as whether an Asterisk of this host sent it."""

    NAMED = "its interface is one of those of the plan, if it names any"
    OUTER = "it is not looped back"
    LOOPED = "it is looped back"
    TO_HOST = "to this host"
    ELSEWHERE = "not to this host"
    TO_ASTERISK = "to an Asterisk"
    FROM_ASTERISK = "from an Asterisk"
    # Forwarded, so a provider's 401 to this host does not match. And by the interface that leads back to its
    # source address, so a packet that a stranger sends with a container's address does not match.
    ROUTED = "from this host, or forwarded"
    UDP = "by UDP"
    TCP = "by TCP"
    FRAGMENT = "a fragment"
    SYN = "a SYN or a SYN-ACK"
    SYN_ACK = "a SYN-ACK"
    EMPTY = "a TCP segment without data"
    ONE_FRAME = "it fits into an Ethernet frame"
    CLIENT_FRAME = "a TCP segment that begins with a frame of a WebSocket client"
    NEW = "it begins a flow, or is not tracked"
    NO_REPLY = "of a flow that this host did not begin"
    REPLY = "answers what this host began; never one that is not tracked"
    REJECTION = "the kernel's own answer to a banned sender"


@frozen
class On:
    """A test: the remote address is on the list ``which``."""

    which: NetworkList


@frozen
class NotOn:
    """A test: the remote address is on none of the lists ``which``."""

    which: tuple[NetworkList, ...]


@frozen
class Containers:
    """A test: the address on this side is one of ``hosts``, where Asterisks run in containers.

    What they send must be forwarded, and come by the interface that leads back to its source address, so a
    packet that a stranger sends with such an address does not match.
    """

    hosts: tuple[Address, ...]


@frozen
class AnyOf:
    """A test: one of ``tests`` is true (at most one ever is). Without tests it matches no packet."""

    tests: tuple[On | NotOn | Is | Containers, ...]


@frozen
class Datagram:
    """A test: the datagram begins with one of ``texts`` or, with ``others``, is any other SIP answer."""

    texts: tuple[bytes, ...]
    others: bool = False


@frozen
class Segment:
    """A test: the TCP segment begins with one of ``texts``, bare or (``framed``) in a WebSocket frame."""

    texts: tuple[bytes, ...]
    framed: bool = False


@frozen
class Bytes:
    """A test: the number of ``size`` bytes at byte ``at`` of the datagram is among ``values``, or is not."""

    at: int
    size: int
    values: tuple[int, ...]
    among: bool = True


@frozen
class Begins:
    """A test: the datagram begins with ``text``."""

    text: bytes


@frozen
class ClientHello:
    """A test: the TCP segment begins with a ClientHello, and the packet has at most ``size`` bytes."""

    size: int


@frozen
class Has:
    """A test: ``table`` has the packet's flow, or (``known`` is false) lacks it."""

    table: Table
    known: bool = True


Test = Is | Containers | On | NotOn | AnyOf | Datagram | Segment | Bytes | Begins | ClientHello | Has | Ports
"""A test of a packet; ``Ports`` is one too: the packet is to, or from, one of these ports of this host."""


@frozen
class Jump:
    """What to do with a packet: continue in a chain, which has a name in each backend.

    ``shared``: nftables has one chain for both IP versions. ``kind`` is the name by which
    the ipset backend counts the packets of the rule.
    """

    nftables: str
    iptables: str
    shared: bool = False
    kind: str = ""


@frozen
class Drop:
    """What to do with a packet: drop it, or with ``rejects`` treat it as one from a banned sender.

    The nftables backend counts it by the counter ``counter``, the ipset backend under the name ``kind``.
    """

    counter: str
    kind: str
    rejects: bool = False


@frozen
class Copy:
    """What to do with a packet: copy it to an NFLOG group with ``prefix``, at most ``size`` bytes (0: all).

    ``group``: 0 is the plan's group.
    """

    prefix: str = ""
    size: int = 0
    group: int = 0


@frozen
class Remember:
    """What to do with a packet: add its sender to ``table``, and count it there (a flow is not counted)."""

    table: Table


@frozen
class Count:
    """What to do with a packet: count it by ``counter``, and drop it if ``drops``."""

    counter: str
    drops: bool


@frozen
class Goto:
    """What to do with a packet: continue in ``chain``, and do not return from there."""

    chain: "Chain"


@frozen
class Shorten:
    """What to do with a packet, a SYN-ACK: set its MSS (longest segment to send back) to ``size`` bytes."""

    size: int


@frozen
class Crowd:
    """What to do with packets while all addresses send so many that a table of ipset would fill.

    They count by ``counter``, and continue in ``to``, or return. A table remembers an address for
    ``seconds``.
    """

    counter: str
    seconds: int
    to: "Chain | None" = None


@frozen
class Meter:
    """What to do with a packet: count it in ``table``; if its address is over a limit, go to ``over``.

    An address may send or get ``rate`` packets a second, and after a pause ``burst`` at once; with
    ``in_bytes`` these are bytes of packets with their headers. ``seconds`` is how long the table remembers
    it. If the table has no room for it, the packet counts by ``full``, and passes. ipset would drop it, so
    there a ``crowd`` skips this meter, and the next ones.
    """

    table: Table
    rate: int
    burst: int
    over: "Chain"
    seconds: int
    in_bytes: bool = False
    full: str = ""
    crowd: Crowd | None = None


@frozen
class LookUp:
    """What to do: drop packets of addresses with bans of ``scope``, and of networks denied likewise."""

    scope: Scope


class Do(enum.Enum):
    """What to do with a packet, if this needs no parameters."""

    RETURN = "return to the chain from which the packet came"
    ACCEPT = "accept"


ActT = TypeVar("ActT")
Act = Jump | Goto | Drop | Copy | Remember | Count | Meter | Shorten | LookUp | Do


def ports_of(tests: Iterable[object]) -> Ports | None:
    """Return the ports among the tests of a rule; None if the rule is for packets of all ports."""
    return next((test for test in tests if isinstance(test, Ports)), None)


@frozen
class PacketRule:
    """A firewall rule: packets that match all ``tests``, and what to do with them (act).

    The tests stand in the order in which nftables makes them, except for that of the ports, which is first.
    """

    tests: tuple[Test, ...]
    act: Act

    @property
    def ports(self) -> Ports | None:
        """The ports among the tests; None if the rule is for packets of all ports."""
        return ports_of(self.tests)


@frozen
class Chain:
    """A chain: rules to which other rules jump. In iptables its name begins with ``ringfence-``.

    ``refuses`` is the name of the counter of packets that ipset drops because the table of the chain's meters
    is full; "" if such packets must pass.
    """

    name: str
    rules: tuple[PacketRule, ...]
    refuses: str = ""

    @property
    def iptables(self) -> str:
        """The chain's name in iptables."""
        return f"ringfence-{self.name.replace('_', '-')}"

    @property
    def only_act(self) -> Act | None:
        """What the chain's only rule does, if this rule has no tests; None for any other chain."""
        return self.rules[0].act if len(self.rules) == 1 and not self.rules[0].tests else None

    @property
    def jump(self) -> Jump:
        """The value by which a rule continues in this chain, and returns from it."""
        return Jump(self.name, self.iptables, kind=f"+{self.refuses}" if self.refuses else "")


@frozen
class Stage:
    """One step on a packet's way through the firewall: its name, a phrase for people, and its rules.

    A plan has the stage only if it is ``on``. ``chains`` are those to which the rules jump, each behind those
    to which it jumps itself. ``position`` is that of a stage that a feature adds.
    """

    name: str
    what: str
    side: Side
    hooks: tuple[Hook, ...]
    rules: tuple[PacketRule, ...]
    on: bool = field(default=True, kw_only=True)
    chains: tuple[Chain, ...] = ()
    position: Position = Position.LAST

    def acts(self, kind: type[ActT]) -> list[ActT]:
        """Return what rules in the stage's chains do with packets, of the class ``kind``, such as Meter."""
        acts = (rule.act for chain in self.chains for rule in chain.rules)
        return [act for act in acts if isinstance(act, kind)]

    @property
    def tables(self) -> list[Table]:
        """The tables of senders in which rules in the stage's chains count packets."""
        return [*self.sets, *(one.table for one in self.acts(Meter))]

    @property
    def sets(self) -> list[Table]:
        """The tables to which rules in the stage's chains add addresses or flows."""
        return list(dict.fromkeys(one.table for one in self.acts(Remember)))

    def rules_at(self, hook: Hook, plan: FirewallPlan, version: int) -> Iterator[PacketRule]:
        """Yield the stage's rules at the kernel's ``hook``, with only those tests that can be made there."""
        here = self._at_hook(hook, plan, version) if hook in self.hooks else {}
        for rule in self.rules if here else ():
            if isinstance(rule.act, Copy) and not (rule.act.group or plan.log_group):
                continue
            tests = (test for one in rule.tests if (test := here.get(one, one)) is not None)
            yield PacketRule((*self._known(hook, plan), *tests), rule.act)

    def _known(self, hook: Hook, plan: FirewallPlan) -> tuple[Test, ...]:
        """Return a test that every packet of the stage matches at ``hook``, and few others.

        What arrives and goes to a remote address is forwarded. The test saves time only. Bans must hold
        without it, if the kernel cannot make it: then it can neither copy packets nor limit strangers.
        """
        saves = hook is Hook.ARRIVING and self.side is Side.TO and (plan.copies or plan.limits)
        return (Is.ELSEWHERE,) if saves else ()

    def _at_hook(self, hook: Hook, plan: FirewallPlan, version: int) -> Mapping[Test, Test | None]:
        """Return the tests to replace at ``hook``, each with its replacement; None: it is always true."""
        hosts = tuple(sorted(one for one in plan.containers if one.version == version))
        containers, never = (Containers(hosts),) if hosts else (), AnyOf(())
        arriving, rejects = hook is Hook.ARRIVING, plan.action is not BanAction.DROP
        unknown = arriving and self.side is Side.TO  # by which interface the packet leaves
        ours = {Hook.ARRIVING: AnyOf((Is.TO_HOST, *containers)), Hook.FORWARD: AnyOf(containers)}
        return {
            Is.NAMED: None if unknown or not plan.interfaces else Is.NAMED,
            Is.OUTER: None if unknown else Is.OUTER,
            Is.LOOPED: never if unknown else Is.LOOPED,
            Is.ROUTED: Is.ROUTED if arriving else None,
            Is.FROM_ASTERISK: AnyOf(containers) if arriving else None,
            Is.TO_ASTERISK: ours.get(hook),
            Is.REJECTION: Is.REJECTION if hook is Hook.LEAVING and rejects else never,
        }


CLIENT_FRAME = 0x7480, 0x0080
"""A mask and a value of the first two bytes of a WebSocket client's frame (RFC 6455).

The frame has no reserved bit, one of the codes 0 to 2 and 8 to 10 (3 and 11 have the same bits), and the mask
bit. Control frames are among these. No request of HTTP and no record of TLS begins so.
"""
STRANGERS = NotOn((network_lists.FRIENDS, network_lists.UNSHIELDED, network_lists.ALLOW))
_WATCHED = AnyOf(
    (On(network_lists.OBSERVED), NotOn((network_lists.FRIENDS, network_lists.ALLOW, network_lists.OBSERVED)))
)
_ALLOWED = network_lists.ALLOW
_INNER = Hook.INPUT, Hook.FORWARD


def stages(plan: FirewallPlan, fragments: Fragments = Fragments.REASSEMBLED) -> tuple[Stage, ...]:
    """Return the stages of ``plan`` in order; ``fragments``: what happens to strangers' fragments."""
    return tuple(stage for stage in every_stage(plan, fragments) if stage.on)


def every_stage(plan: FirewallPlan, fragments: Fragments = Fragments.REASSEMBLED) -> tuple[Stage, ...]:
    """Return all stages in their order, also those that are off."""
    added = [stage for one in plan.added for stage in one.stages(plan)]

    def at(side: Side, position: Position) -> Iterator[Stage]:
        return (one for one in added if one.side is side and one.position is position)

    return (
        *_from_senders(plan, fragments, at(Side.FROM, Position.BEFORE_COPIES)),
        *at(Side.FROM, Position.LAST),
        *_to_receivers(plan),
        *at(Side.TO, Position.LAST),
    )


@cache
def added_stages() -> tuple[Stage, ...]:
    """Return the stages (groups of firewall rules) that the installed features can add."""
    return tuple(stage for one in additions() for stage in one.stages(FirewallPlan()))


def counter_names() -> list[str]:
    """Return the names of the packet counters that the installed features' rules have."""
    counted = [one.counter for stage in added_stages() for one in stage.acts(Count)]
    full = (one.full for stage in added_stages() for one in stage.acts(Meter) if one.full)
    return list(dict.fromkeys([*counted, *full]))


SidedRule = tuple[Side, PacketRule]
"""A rule with the side of its stage."""


def rules_at(steps: Iterable[Stage], hook: Hook, plan: FirewallPlan, version: int) -> list[SidedRule]:
    """Return the rules of ``steps`` at ``hook``, in their order."""
    return [(stage.side, rule) for stage in steps for rule in stage.rules_at(hook, plan, version)]


def runs(rules: Iterable[SidedRule]) -> Iterator[tuple[Side | Is | None, list[SidedRule]]]:
    """Yield ``rules`` in their order, in runs that share a test.

    The test is ``Is.ELSEWHERE``, which the rules of the run then lack; or that of the ports on one side,
    given as this side; or None. A backend makes it once, and writes the run into a chain of its own. So
    packets of media do not meet these rules.
    """
    for test, run in groupby(rules, lambda one: _shared_test(*one)):
        without = (
            (side, PacketRule(tuple(one for one in rule.tests if one is not test), rule.act))
            for side, rule in run
        )
        yield test, [*without]


def _shared_test(side: Side, rule: PacketRule) -> Side | Is | None:
    if Is.ELSEWHERE in rule.tests:
        return Is.ELSEWHERE
    return side if rule.ports else None


def _from_senders(
    plan: FirewallPlan, fragments: Fragments, before_copies: Iterator[Stage]
) -> Iterator[Stage]:
    """Yield the stages about packets that remote addresses send, in order.

    ``before_copies`` are those of features that stand before the copies of requests.
    """
    sip, copies = plan.sip_ports, plan.log_group is not None
    come, raw = (Is.NAMED, Is.OUTER), (Side.FROM, (Hook.ARRIVING,))
    where = raw[1] if plan.action is BanAction.DROP else _INNER
    what = "drops packets from banned and denied networks"
    yield Stage("bans and lists", what, Side.FROM, where, (*_look_ups(plan),))
    split = PacketRule((*come, Is.FRAGMENT, sip, Is.TO_ASTERISK, STRANGERS), Drop("fragments", FRAGMENTS))
    what = "drops fragments of strangers, if the kernel does not reassemble packets before"
    yield Stage("fragments", what, *raw, (split,), on=fragments is Fragments.DROPPED)
    yield from before_copies
    seen = PacketRule(
        (Is.OUTER, sip.conversations, _WATCHED), Jump("requests", "ringfence-seen", shared=True)
    )
    what = "copies the requests of strangers and observed friends to the wire"
    yield Stage("requests", what, *raw, (seen,), on=copies)
    what = "drops new flows from denied regions, block lists, and networks that other hosts banned"
    yield Stage("new flows", what, Side.FROM, _INNER, (*_new_flows(plan),), on=plan.new_only)


def _to_receivers(plan: FirewallPlan) -> Iterator[Stage]:
    """Yield the stages about packets that this host or a container sends to remote addresses, in order."""
    ports, copy, sent = plan.sip_ports, Copy(), (Side.TO, (Hook.ARRIVING, Hook.LEAVING))
    talks, tcp = Ports(ports.conversations.udp, ()), Ports((), ports.tcp)
    answers = (
        PacketRule((Is.UDP, Datagram(COPIED), Is.ROUTED), copy),
        PacketRule((Is.OUTER, talks, Datagram(COPIED, others=True), Is.ROUTED, _WATCHED), copy),
    )
    what = "copies refusals by UDP, and all answers to strangers and observed friends, to the wire"
    yield Stage("answers", what, *sent, answers)
    segments = (
        PacketRule((Is.LOOPED, tcp), Jump("answers", "ringfence-answer", shared=True)),
        PacketRule((Is.OUTER, tcp, Is.ROUTED), Jump("segments", "ringfence-segment", shared=True)),
    )
    what = "copies TCP segments to strangers and observed friends, and refusals to others, to the wire"
    yield Stage("segments", what, *sent, segments, on=plan.log_group is not None)
    where = Hook.FORWARD if plan.interfaces else Hook.ARRIVING, Hook.LEAVING
    rules = PacketRule((Is.REJECTION,), Do.ACCEPT), *_look_ups(plan)
    what = "drops packets to banned and denied networks"
    yield Stage("bans and lists", what, Side.TO, where, rules)


def _look_ups(plan: FirewallPlan) -> Iterator[PacketRule]:
    """Yield the rules that drop packets of banned and denied networks, those for all ports first."""
    for scope, ports in plan.covered.items():
        of = (ports,) if ports else ()
        yield PacketRule((Is.NAMED, *of, NotOn((_ALLOWED,))), LookUp(scope))


def _new_flows(plan: FirewallPlan) -> Iterator[PacketRule]:
    """Yield the rules that drop new flows from denied regions, block lists and other hosts' bans."""
    drop = Drop("from_denied", FROM_DENIED, rejects=True)
    for which, scope in plan.dropped_lists.items():
        if which.by_machine:
            ports = (covered,) if (covered := plan.covered[scope]) else ()
            yield PacketRule((Is.NAMED, *ports, Is.NEW, On(which), NotOn((_ALLOWED, *PASSING))), drop)
