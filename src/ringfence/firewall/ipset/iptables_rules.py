"""The wanted iptables rules: a pure function of the plan, in the notation of iptables-save.

    raw PREROUTING     -> ringfence-pre:    drop packets from banned addresses; then fragments of strangers;
                                            then the limiter, then the
                                            copies of strangers' requests, then the log rules for the wire;
                                            then drop packets that are routed to banned addresses; then the
                                            ration of the containers' refusals
    raw OUTPUT         -> ringfence-out:    the log rules; then drop packets of this host to banned addresses;
                                            then the ration of this host's refusals
                          ringfence-limit:  send packets over the limit to ringfence-over
                          ringfence-over:   add the source to the flood set, drop the packet in mode enforce
                          ringfence-segment: copy TCP segments to strangers; others go to ringfence-answer
                          ringfence-answer: copy TCP segments that begin with an answer
                          ringfence-ration: count the refusals to each stranger; drop those over the ration
                          ringfence-bytes:  the same for the bytes of SIP over TCP and TLS
                          ringfence-asked and others: the ration of questions (``asking.py``)
                          ringfence-seen:   copy requests of strangers, a limited number a second
                          ringfence-narrow: for a narrow ban (of SIP over UDP only): copy the packet, and
                                            drop it
                          ringfence-drop:   log a few packets a second, drop all; only if a log is configured
                          ringfence-whole:  no packet reaches it: its match ``socket`` makes the kernel
                                            reassemble packets before raw (``contract.FRAGMENTS``)
    filter INPUT       -> ringfence-in      } only for an action that raw cannot have (reject), for new flows
    filter FORWARD     -> ringfence-fwd     } of fetched and decided networks (``new_only``) and from outside
                                              the fence, and, if interfaces are named, for packets routed
                                              through them
                          ringfence-fence:  add the source to the fenced set, drop the packet in mode enforce

Table raw is before connection tracking. So a ban also stops established connections, and protects a container
behind DNAT. ``contract.py`` explains the wire.

Packets to a banned address are dropped too. Asterisk still checks the guesses that already wait in its
socket, and these rules drop its answers. In a test with 2 000 guesses sent before the ban, 180 to 1 126 were
answered if only incoming packets were dropped, and 3 to 849 if packets in both directions were dropped.

A drop rule first matches "not on the allow list" and then "banned", so the counter of a ban counts dropped
packets only. No rule accepts packets of allowed networks, or returns for them, because later rules still
apply to them. For a ban that exempts friends (``sets.py``), "not a friend" is matched before "banned" in the
same way. For fetched and decided networks, ``contract.PASSING`` is matched last, because most packets come
from other networks. A rule without a counter of its own drops the packets of the probe first
(``contract.PROBE_NETWORKS``).

The kernel permits no reject in table raw. So if the plan's action is a reject, table filter rejects the
packets from banned addresses. Raw still drops the packets to them, except for the ICMP errors or RSTs of the
reject. (A banned sender on the same IPv6 link soon gets no ICMP errors or RSTs either: raw also drops the
neighbour solicitation for its hardware address.)

PREROUTING does not know the output interface of a packet. So if interfaces are named, packets that are routed
to a banned address are dropped in FORWARD. Before that, the log rules in PREROUTING have copied them: the
wire needs the challenges that a ban drops (``contract.py`` has the reason).

A sender has often answered its last challenge when the ban takes effect. So a narrow ban copies packets
before it drops them. The nonce in such a packet proves the address, and the ban becomes a full one. These
copies have a limit of their own, so that a banned flood does not use up the limit of the others.

The limiter is the match hashlimit, which counts each source separately. It limits UDP by packets. It limits
TCP by packets and by bytes, because one segment may carry many guesses (a SIP guess has at least 300 bytes).
hashlimit's byte limit has a budget for each second. Its burst is a number of additional budgets, the refills.
A packet that is larger than the budget costs only one budget. Therefore a separate rule treats such packets
as over the limit. Such a packet was combined from smaller ones on arrival, and TCP sends its contents again
in smaller ones. A hashlimit table keeps the limits with which it was made, as long as a rule names it.
Therefore its name contains the limits.

If a hashlimit table is full, the match itself drops the packets of every source that is not in it, and no
rule counts them. Only a sender with forged addresses can fill a table: it needs a million addresses within
ten seconds, and the table then takes 120 MB. In mode enforce, the number of packets dropped in this way is
computed: they entered the limiter, and were neither over nor within the limit (``Counters.limiter_full``).
Mode observe must drop no packet. So in this mode the limiter inspects only a limited number of packets a
second from all sources together, too few to fill the table. The other packets pass, and
``Counters.limiter_full`` counts them too.

The ration (``contract.Ration``) is a hashlimit too, by the address of the receiver: one for the refusals by
UDP, one for the bytes by TCP. It leaves out segments without data, and those that begin a TLS handshake or an
answer to a stranger that Asterisk serves (``nftables/ruleset.py`` has the reasons). hashlimit refills the
whole byte budget each second, and a packet larger than the budget costs only the budget, so such packets are
over the ration. Its table must not become full, because a full table would drop the packets to every new
stranger. So packets skip the ration if the SIP ports send too many a second to all strangers together. They
are counted (``Counters.ration_full``).

The copies of a source are limited by a hashlimit too (``_over_copies``).

The log rules copy SIP answers to an NFLOG group: over UDP 401, 403, 404 and 407. ``sources/wire.py`` reads
the group; the kernel sends nothing to a group without a reader. The match u32 compares the first bytes of a
datagram, such as "SIP/2.0 401". To strangers, all other answers by UDP from the SIP ports are copied too: a
success shows that the request was no guess. Of TCP, every segment from the SIP ports to a stranger is copied,
also one without data: an answer may stand anywhere in the stream, and the sender decides where. Segments to
friends and allowed networks, and over the loopback interface, are copied only if they begin with a 401, 403
or 407, because phones and trunks receive much. To observed friends all is copied that is copied to
strangers. In these rules, u32 uses the header's length to find the payload. The
status line stands first, or first in a WebSocket text frame (RFC 6455: 0x81, then a length below 126, or 126
and a length of 16 bits; a server does not mask).

The messages that Asterisk exports (``contract.HepExport``) are copied in OUTPUT, also over loopback, with a
prefix, if they came by TLS or WSS.

PREROUTING sees the answers of bridged containers, and any packets from outside. There a packet is copied
under two conditions. It is to be forwarded, so a provider's 401 to this host is not copied. And it arrived by
the interface that leads back to its source address, so a packet that a stranger sends with a container's
address is not copied.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from attrs import frozen

from ringfence.firewall.contract import (
    COPIED,
    DROPPED_PREFIX,
    DROPPED_RATE,
    FLOOD_SECONDS,
    FRAGMENTS,
    FROM_BANNED,
    FROM_DENIED,
    GUESS,
    HEP_PREFIX,
    HEP_PROTOCOL,
    HEP_SOURCE_PORT,
    HEP_TARGET_PORT,
    HEP_TCP,
    MOST_LIMITED,
    OUTSIDE_SECONDS,
    PASSING,
    PROBE_NETWORKS,
    PROBE_PORT,
    REFUSALS,
    REQUEST_PREFIX,
    REQUEST_RATE,
    SENDER_SECONDS,
    SERVED,
    TO_BANNED,
    TO_DENIED,
    BanAction,
    FirewallPlan,
    Fragments,
    Limit,
    LimitMode,
    NetworkList,
    Ration,
)
from ringfence.firewall.ipset import asking
from ringfence.firewall.ipset.matches import (
    BUCKETS,
    DATAGRAM,
    FORWARDED,
    HEADER,
    IPV6_HEADER,
    STREAM,
    TO_THIS_HOST,
    IptablesRule,
    begins,
    not_on,
    over_all,
    port_matches,
    without_data,
)
from ringfence.firewall.ipset.sets import (
    FENCED,
    FLOOD,
    ban_set_name,
    friends_exempt_values,
    list_set_name,
)
from ringfence.values.ban import Scope
from ringfence.values.network import IPV6_SENDER

HOOKS: Mapping[str, Mapping[str, str]] = {
    "raw": {"PREROUTING": "ringfence-pre", "OUTPUT": "ringfence-out"},
    "filter": {"INPUT": "ringfence-in", "FORWARD": "ringfence-fwd"},
}
MADE = "ringfence-made"
_LIMIT, _OVER, _DROP, _REJECT = "ringfence-limit", "ringfence-over", "ringfence-drop", "ringfence-reject"
_RATION, _BYTES = "ringfence-ration", "ringfence-bytes"
_FENCE = "ringfence-fence"
_SEEN, _NARROW = "ringfence-seen", "ringfence-narrow"
_SEGMENT, _ANSWER = "ringfence-segment", "ringfence-answer"
_WHOLE = "ringfence-whole"
# Every chain of ours that may be in a table, of this release or another.
CHAINS: Mapping[str, Sequence[str]] = {
    "raw": (
        "ringfence-pre",
        "ringfence-out",
        _LIMIT,
        _OVER,
        _RATION,
        _BYTES,
        *asking.CHAINS,
        _SEEN,
        _NARROW,
        _SEGMENT,
        _ANSWER,
        _WHOLE,
        _DROP,
        MADE,
    ),
    "filter": ("ringfence-in", "ringfence-fwd", _REJECT, _FENCE, _DROP, MADE),
}

REPORTED = (FROM_BANNED, TO_BANNED, FROM_DENIED, TO_DENIED, FRAGMENTS)
# Kinds of rules at the limiter. The number of packets without room in the limiter is computed from these
# three.
AT_LIMITER = "seen by the limiter"
OVER_LIMIT = "over the limit"
WITHIN_LIMIT = "within the limit"
OVER_RATION = "over the ration"
RATION_FULL = "without room in the ration"
OUTSIDE = "from outside the fence"

_IPV4 = 4
_KIBI = 1024
_FRAME = 2  # kilobytes: an Ethernet frame, rounded up
# Packets in a second of all strangers together, up to which the limit of the copies looks at the source.
_MOST_COPIES = 200_000
_LOG = '-m limit --limit 5/sec --limit-burst 10 -j LOG --log-prefix "ringfence: "'
_RST = "-p tcp -m tcp ! --tcp-flags RST RST "
# By IP version and action: iptables' name of the rejection, and two matches. Every outgoing packet
# satisfies one of the two, except the ICMP error or RST of such a rejection.
_REJECTIONS: Mapping[tuple[int, BanAction], tuple[str, tuple[str, str]]] = {
    (4, BanAction.PORT_UNREACHABLE): (
        "icmp-port-unreachable",
        ("! -p icmp ", "-p icmp -m icmp ! --icmp-type 3/3 "),
    ),
    (4, BanAction.ADMIN_PROHIBITED): (
        "icmp-admin-prohibited",
        ("! -p icmp ", "-p icmp -m icmp ! --icmp-type 3/13 "),
    ),
    (6, BanAction.PORT_UNREACHABLE): (
        "icmp6-port-unreachable",
        ("! -p ipv6-icmp ", "-p ipv6-icmp -m icmp6 ! --icmpv6-type 1/4 "),
    ),
    (6, BanAction.ADMIN_PROHIBITED): (
        "icmp6-adm-prohibited",
        ("! -p ipv6-icmp ", "-p ipv6-icmp -m icmp6 ! --icmpv6-type 1/1 "),
    ),
    (4, BanAction.TCP_RESET): ("tcp-reset", ("! -p tcp ", _RST)),
    (6, BanAction.TCP_RESET): ("tcp-reset", ("! -p tcp ", _RST)),
}
_CODES, _COPIED_CODES = (
    ",".join(f"0x{begin[-4:].hex()}" for begin in begins) for begins in (REFUSALS, COPIED)
)
_FRAGMENTS = {4: '-m u32 --u32 "0x4&0x3fff=0x1:0x3fff" ', 6: "-m ipv6header --header ipv6-frag --soft "}
_FENCED = "-m conntrack --ctstate NEW,ESTABLISHED,UNTRACKED "

# By table, by chain, in order.
Rules = Mapping[str, Mapping[str, Sequence[IptablesRule]]]


def wanted_rules(
    plan: FirewallPlan,
    version: int,
    *,
    wire: bool = True,
    limiter: bool = True,
    fragments: Fragments = Fragments.PASSED,
) -> Rules:
    """Return the wanted rules of each chain of ours for IP ``version``.

    If ``wire`` is false, the log rules and the copies of requests are left out, although the plan contains
    them. If ``limiter`` is false, the rules of the limiter and of the ration are left out, and the limit of
    the copies of each source. ``fragments``: what happens to fragments of strangers.
    """
    plan = plan if limiter else plan.without_limits()
    copies = wire and plan.log_group is not None
    family = _Plan(plan, version, copies=copies, drops_fragments=fragments is Fragments.DROPPED)
    questions = asking.Asking(plan, version, family.target)
    pre = [*family.raw_in(), *family.fragments(), *family.to_limiter(), *questions.entries()]
    out: list[IptablesRule] = []
    copying: Mapping[str, Sequence[IptablesRule]] = {}
    if copies:
        way = FORWARDED[version]
        pre += [*family.to_copies(), *_answer_rules(plan, version, way), *family.other_answers(way)]
        out += [*_exports(plan, version), *_answer_rules(plan, version), *family.other_answers()]
        copying = _stream_chains(plan, version)
    pre += [*questions.outgoing(forwarded=True), *family.raw_routed()]
    out += [*questions.outgoing(), *family.raw_out()]
    raw: dict[str, Sequence[IptablesRule]] = {
        "ringfence-pre": [*pre, *family.to_ration(forwarded=True)],
        "ringfence-out": [*out, *family.to_ration()],
        **({_WHOLE: [IptablesRule("-m socket")]} if fragments is Fragments.REASSEMBLED else {}),
        **copying,
        **questions.chains(),
    }
    if plan.limit.mode is not LimitMode.OFF:
        raw[_LIMIT] = _limit(plan.limit, version)
        raw[_OVER] = _over(plan, version)
    if plan.ration.mode is not LimitMode.OFF:
        raw |= _ration_chains(plan, version, family.target)
    if copies and (plan.sip_ports.udp or plan.sip_ports.tcp):
        raw[_SEEN] = [*_over_copies(plan, version), _copy(plan, REQUEST_RATE)]
        if not family.rejects:
            raw[_NARROW] = [_copy(plan, DROPPED_RATE, DROPPED_PREFIX), IptablesRule(f"-j {family.target}")]
    into = {
        "ringfence-in": [*family.filter_in(), *family.to_fence()],
        "ringfence-fwd": [*family.filter_in(), *family.to_fence(forwarded=True), *family.filter_forward()],
    }
    inner: dict[str, Sequence[IptablesRule]] = {chain: rules for chain, rules in into.items() if rules}
    if family.rejects:
        inner[_REJECT] = _reject(plan, version)
    if plan.fence is not LimitMode.OFF:
        inner[_FENCE] = _fence(plan, version, family.target)
    for chains in (raw, inner):
        if plan.log and any(rule.text.endswith(f"-j {_DROP}") for rules in chains.values() for rule in rules):
            chains[_DROP] = [IptablesRule(_LOG), IptablesRule("-j DROP")]
    return {"raw": raw, "filter": inner} if inner else {"raw": raw}


def named_sets(rules: Rules) -> dict[str, int]:
    """Return how often the rules name each set.

    The kernel counts at least as many references to the set while all these rules are installed.
    """
    counts: dict[str, int] = {}
    for chains in rules.values():
        for rule in (rule for chain in chains.values() for rule in chain):
            words = rule.text.split()
            for word, name in pairwise(words):
                if word in ("--match-set", "--add-set"):
                    counts[name] = counts.get(name, 0) + 1
    return counts


@frozen
class _Plan:
    """A plan for one IP version, and the rules of its chains."""

    plan: FirewallPlan
    version: int
    copies: bool
    """Whether requests are copied to the wire source."""
    drops_fragments: bool
    """Whether fragments of strangers are dropped."""

    @property
    def rejects(self) -> bool:
        return self.plan.action is not BanAction.DROP

    def raw_in(self) -> list[IptablesRule]:
        return [] if self.rejects else self._drop_rules("src", "-i", self.target)

    def raw_routed(self) -> list[IptablesRule]:
        # PREROUTING does not know the output interface: if interfaces are named, FORWARD drops these packets.
        return [] if self.plan.interfaces else self._drop_rules("dst", "", self.target)

    def raw_out(self) -> list[IptablesRule]:
        return self._drop_rules("dst", "-o", self.target, allow_rejections=self.rejects)

    def filter_in(self) -> list[IptablesRule]:
        banned = self._drop_rules("src", "-i", _REJECT) if self.rejects else []
        target = _REJECT if self.rejects else self.target
        return [*banned, *(self._from_fetched("src", "-i", target) if self.plan.new_only else ())]

    def _from_fetched(
        self, side: str, option: str, target: str, *, allow_rejections: bool = False
    ) -> list[IptablesRule]:
        """Return the rules that drop packets of fetched and decided networks; the arguments are as below.

        With ``new_only`` these are new flows, behind connection tracking.
        """
        new = "-m conntrack --ctstate NEW,UNTRACKED " if self.plan.new_only else ""
        strangers = self._not_on(side, NetworkList.ALLOW, *PASSING)
        full, sip = (one(side, allow_rejections=allow_rejections) for one in (self._full, self._sip))
        return [
            IptablesRule(
                f"{way}{packets}{new}-m set --match-set {list_set_name(which, self.version)} {side} "
                f"{strangers}-j {target}",
                FROM_DENIED if side == "src" else TO_DENIED,
            )
            for which, scope in self.plan.foreign_lists.items()
            for packets in (full if scope is Scope.FULL else sip)
            for way in self._interface_matches(option)
        ]

    def to_fence(self, *, forwarded: bool = False) -> list[IptablesRule]:
        """Return the rules that send packets from outside the fence to ``ringfence-fence``.

        ``forwarded``: they match packets to the containers, otherwise to this host.
        """
        plan = self.plan
        if plan.fence is LimitMode.OFF:
            return []
        containers = sorted(one for one in plan.containers if one.version == self.version)
        targets = [f"-d {one}/{one.max_prefixlen} " for one in containers] if forwarded else [""]
        outside = self._not_on("src", NetworkList.ALLOW, *PASSING, NetworkList.INSIDE)
        return [
            IptablesRule(f"{to}{way}{packets}{_FENCED}{outside}-j {_FENCE}")
            for to in targets
            for protocol, ports in (("udp", plan.sip_ports.udp), ("tcp", plan.sip_ports.tcp))
            for packets in port_matches(protocol, ports, "src")
            for way in (self._interface_matches("-i") if plan.interfaces else ["! -i lo "])
        ]

    def filter_forward(self) -> list[IptablesRule]:
        return self._drop_rules("dst", "-o", self.target) if self.plan.interfaces else []

    @property
    def target(self) -> str:
        return _DROP if self.plan.log else "DROP"

    def _drop_rules(
        self, side: str, option: str, target: str, *, allow_rejections: bool = False
    ) -> list[IptablesRule]:
        """Return the rules that send packets of banned addresses and of the deny list to ``target``.

        ``side`` is "src" for packets from these addresses, "dst" for packets to them. ``option`` is the
        option of iptables that matches the interfaces of the plan; "" if the rules match all interfaces.
        ``allow_rejections``: the rules do not match the kernel's own ICMP errors or RST.
        """
        version = self.version
        full = self._full(side, allow_rejections=allow_rejections)
        udp = port_matches("udp", self.plan.sip_ports.udp, side)
        tcp = self._tcp(side, allow_rejections=allow_rejections)
        banned, denied = (FROM_BANNED, FROM_DENIED) if side == "src" else (TO_BANNED, TO_DENIED)
        matches = {
            Scope.FULL: full,
            Scope.SIP: self._sip(side, allow_rejections=allow_rejections),
            Scope.SIP_UDP: udp,
            Scope.SIP_TCP: tcp,
        }
        narrow = side == "src" and self.copies and not self.rejects
        name = ban_set_name(version, Scope.FULL, friends_exempt=False)
        probed = [
            IptablesRule(
                f"{'-s' if side == 'src' else '-d'} {PROBE_NETWORKS[version]} {way}{packets}"
                f"-m set --match-set {name} {side} -j {target}"
            )
            for packets in full
            for way in self._interface_matches(option)
        ]
        rows = [
            *(
                (
                    ban_set_name(version, scope, friends_exempt=friends_exempt),
                    friends_exempt,
                    matches[scope],
                    banned,
                    _NARROW if narrow and scope is Scope.SIP_UDP else target,
                )
                for scope in Scope
                for friends_exempt in friends_exempt_values(version)
            ),
            (list_set_name(NetworkList.DENY, version), False, full, denied, target),
        ]
        found = [
            IptablesRule(
                f"{way}{packets}"
                f"{self._not_on(side, NetworkList.ALLOW, *[NetworkList.FRIENDS] * friends_exempt)}"
                f"-m set --match-set {name} {side} -j {end}",
                kind,
            )
            for name, friends_exempt, covered, kind, end in rows
            for packets in covered
            for way in self._interface_matches(option)
        ]
        if not self.plan.new_only:
            found += self._from_fetched(side, option, target, allow_rejections=allow_rejections)
        return probed + found

    def _not_on(self, side: str, *lists: NetworkList) -> str:
        return not_on(self.version, side, *lists)

    def _full(self, side: str, *, allow_rejections: bool) -> list[str]:
        """Return the matches for the packets that a full ban covers. Each needs a rule of its own."""
        plan = self.plan
        if plan.every_port:
            return list(_REJECTIONS[self.version, plan.action][1]) if allow_rejections else [""]
        udp = port_matches("udp", (*plan.sip_ports.udp, PROBE_PORT), side)
        return [*udp, *self._tcp(side, allow_rejections=allow_rejections)]

    def _sip(self, side: str, *, allow_rejections: bool) -> list[str]:
        """Return the matches for packets from or to the SIP ports. Each needs a rule of its own."""
        udp = port_matches("udp", self.plan.sip_ports.udp, side)
        return [*udp, *self._tcp(side, allow_rejections=allow_rejections)]

    def _tcp(self, side: str, *, allow_rejections: bool) -> list[str]:
        """Return the matches for TCP from or to the SIP ports. Each needs a rule of its own."""
        tcp = port_matches("tcp", self.plan.sip_ports.tcp, side)
        if allow_rejections and self.plan.action is BanAction.TCP_RESET:
            return [match.replace("-p tcp ", _RST, 1) for match in tcp]
        return tcp

    def _interface_matches(self, option: str) -> list[str]:
        if not option or not self.plan.interfaces:
            return [""]
        return [f"{option} {name} " for name in self.plan.interfaces]

    def fragments(self) -> list[IptablesRule]:
        """Return the rules that drop the first fragments of strangers to the SIP ports; others have no ports.

        They match no packet that the kernel has reassembled.
        """
        plan = self.plan
        if not self.drops_fragments:
            return []
        strangers = self._not_on("src", NetworkList.FRIENDS, NetworkList.UNSHIELDED, NetworkList.ALLOW)
        containers = sorted(one for one in plan.containers if one.version == self.version)
        return [
            IptablesRule(
                f"{to}{way}{packets}{_FRAGMENTS[self.version]}{where}{strangers}-j {self.target}", FRAGMENTS
            )
            for to, where in [
                ("", TO_THIS_HOST),
                *((f"-d {one}/{one.max_prefixlen} ", "") for one in containers),
            ]
            for protocol, ports in (("udp", plan.sip_ports.udp), ("tcp", plan.sip_ports.tcp))
            for packets in port_matches(protocol, ports, "src")
            for way in (self._interface_matches("-i") if plan.interfaces else ["! -i lo "])
        ]

    def to_limiter(self) -> list[IptablesRule]:
        plan = self.plan
        if plan.limit.mode is LimitMode.OFF:
            return []
        strangers = self._not_on("src", NetworkList.FRIENDS, NetworkList.UNSHIELDED, NetworkList.ALLOW)
        return [
            IptablesRule(f"{way}{packets}{TO_THIS_HOST}{strangers}-j {_LIMIT}", AT_LIMITER)
            for protocol, ports in (("udp", plan.sip_ports.udp), ("tcp", plan.sip_ports.tcp))
            for packets in port_matches(protocol, ports, "src")
            for way in (self._interface_matches("-i") if plan.interfaces else ["! -i lo "])
        ]

    def to_copies(self) -> list[IptablesRule]:
        """Return the rules that send packets to ``ringfence-seen``, which copies them.

        These are the packets of strangers and of observed friends.
        """
        ports = self.plan.sip_ports.conversations
        return [
            IptablesRule(f"! -i lo {packets}{whose}-j {_SEEN}")
            for protocol, numbers in (("udp", ports.udp), ("tcp", ports.tcp))
            for packets in port_matches(protocol, numbers, "src")
            for whose in self._copied("src")
        ]

    def _copied(self, side: str) -> tuple[str, str]:
        """Return the matches of packets of observed friends and of strangers; a packet fits one of them."""
        observed = f"-m set --match-set {list_set_name(NetworkList.OBSERVED, self.version)} {side} "
        return observed, self._not_on(side, NetworkList.FRIENDS, NetworkList.ALLOW, NetworkList.OBSERVED)

    def other_answers(self, passing: str = "") -> list[IptablesRule]:
        """Return the log rules for the answers by UDP that no other log rule copies.

        These are the answers to strangers and to observed friends.
        ``passing`` is as in :func:`_answer_rules`.
        """
        way = "" if passing else "! -o lo "
        log = f"-j NFLOG --nflog-group {self.plan.log_group}"
        tests = (
            f'-m u32 --u32 "{_datagram_test(self.version)}" '
            f'-m u32 ! --u32 "{_datagram_test(self.version, _COPIED_CODES)}" '
        )
        return [
            IptablesRule(f"{way}{packets}{tests}{passing}{whose}{log}")
            for packets in port_matches("udp", self.plan.sip_ports.conversations.udp, "dst")
            for whose in self._copied("dst")
        ]

    def to_ration(self, *, forwarded: bool = False) -> list[IptablesRule]:
        """Return the rules that ration the refusals and segments of this host, or of its containers."""
        plan = self.plan
        if plan.ration.mode is LimitMode.OFF:
            return []
        own = self._interface_matches("-o") if plan.interfaces else ["! -o lo "]
        containers = sorted(one for one in plan.containers if one.version == self.version)
        routed = [f"-s {one}/{one.max_prefixlen} {FORWARDED[self.version]}" for one in containers]
        refusal = f'-m u32 --u32 "{_datagram_test(self.version, _CODES)}" '
        strangers = self._not_on("dst", NetworkList.FRIENDS, NetworkList.UNSHIELDED, NetworkList.ALLOW)
        ports = plan.sip_ports
        udp = (f"{udp}{refusal}" for udp in port_matches("udp", ports.udp, "dst"))
        web = (
            f'{web}-m u32 --u32 "{test}" '
            for web in port_matches("tcp", ports.web, "dst")
            for test in _status_line_tests(self.version)
        )
        streams = port_matches("tcp", ports.streams + ports.tls, "dst")
        return [
            IptablesRule(f"{way}{packets}{strangers}-j {chain}")
            for chain, matches in ((_RATION, [*udp, *web]), (_BYTES, streams))
            for packets in matches
            for way in (routed if forwarded else own)
        ]


def _copy(plan: FirewallPlan, rate: int, prefix: str = REQUEST_PREFIX) -> IptablesRule:
    """Return the rule that copies a request to the wire.

    Each IP version has its own rules, and therefore half of the ``rate`` (packets a second).
    """
    limit = f"-m limit --limit {rate // 2}/sec --limit-burst {rate // 2}"
    return IptablesRule(f"{limit} -j NFLOG --nflog-prefix {prefix} --nflog-group {plan.log_group}")


def _over_copies(plan: FirewallPlan, version: int) -> list[IptablesRule]:
    """Return the rule that copies no requests of a source over its limit; none if there is no such limit.

    A full hashlimit table would drop packets. So beyond ``_MOST_COPIES`` packets of all sources in a second
    the rule does not look at the source. An entry stays at most a second longer than ``SENDER_SECONDS``. So
    the table becomes at most 80 % full, even if each packet has a new address.
    """
    if not plan.limits_copies:
        return []
    rate, mask = plan.sender_rate, "" if version == _IPV4 else f" --hashlimit-srcmask {IPV6_SENDER}"
    return [
        IptablesRule(
            f"-m hashlimit --hashlimit-upto {_MOST_COPIES}/sec --hashlimit-burst {_MOST_COPIES} "
            "--hashlimit-name ringfence-copies-all "
            f"-m hashlimit --hashlimit-above {rate}/sec --hashlimit-burst {rate} --hashlimit-mode srcip "
            f"--hashlimit-name ringfence-copies-{rate} --hashlimit-htable-size {BUCKETS} "
            f"--hashlimit-htable-max {MOST_LIMITED} --hashlimit-htable-expire {SENDER_SECONDS * 1000}{mask} "
            "-j RETURN"
        )
    ]


def _answer_rules(plan: FirewallPlan, version: int, passing: str = "") -> list[IptablesRule]:
    """Return the log rules of a chain; ``passing`` is the match of forwarded packets, "" in OUTPUT."""
    log = f"-j NFLOG --nflog-group {plan.log_group}"
    ways = [("", _SEGMENT)] if passing else [("-o lo ", _ANSWER), ("! -o lo ", _SEGMENT)]
    return [
        IptablesRule(f'-p udp -m u32 --u32 "{_datagram_test(version, _COPIED_CODES)}" {passing}{log}'),
        *(
            IptablesRule(f"{way}{ports}{passing}-j {chain}")
            for ports in port_matches("tcp", plan.sip_ports.tcp, "dst")
            for way, chain in ways
        ),
    ]


def _exports(plan: FirewallPlan, version: int) -> Iterator[IptablesRule]:
    """Yield the rules that copy Asterisk's decrypted messages of TLS and WSS, each message once."""
    hep = plan.hep
    if not hep.streams:
        return
    begin = DATAGRAM if version == _IPV4 else IPV6_HEADER + DATAGRAM
    way = HEADER if version == _IPV4 else ""
    # u32 compares the last bytes of the four that it reads.
    source, target = (
        f"{way}{begin + at - 2:#x}&0xffff={','.join(map(hex, hep.streams))}"
        for at in (HEP_SOURCE_PORT, HEP_TARGET_PORT)
    )
    stream = f"{way}{begin + HEP_PROTOCOL - 3:#x}&0xff={HEP_TCP:#x}"
    log = f"-j NFLOG --nflog-prefix {HEP_PREFIX} --nflog-group {plan.log_group} --nflog-size {hep.size}"
    for ports in port_matches("udp", hep.targets, "src"):
        yield IptablesRule(f'{ports}-m u32 --u32 "{stream}&&{source}" {log}')
        yield IptablesRule(f'{ports}-m u32 --u32 "{stream}&&{target}" -m u32 ! --u32 "{source}" {log}')


def _stream_chains(plan: FirewallPlan, version: int) -> dict[str, Sequence[IptablesRule]]:
    """Return the chains that copy TCP segments from the SIP ports: all those to strangers, and answers."""
    log = f"-j NFLOG --nflog-group {plan.log_group}"
    if not plan.sip_ports.tcp:
        return {}
    known = (list_set_name(one, version) for one in (NetworkList.ALLOW, NetworkList.FRIENDS))
    observed = f"-m set ! --match-set {list_set_name(NetworkList.OBSERVED, version)} dst "
    return {
        _ANSWER: [
            IptablesRule(f'-p tcp -m u32 --u32 "{test}" {log}') for test in _status_line_tests(version)
        ],
        _SEGMENT: [
            *(IptablesRule(f"{observed}-m set --match-set {name} dst -g {_ANSWER}") for name in known),
            IptablesRule(log),
        ],
    }


def _datagram_test(version: int, codes: str = "") -> str:
    """Return u32's test for a status line with one of ``codes`` that begins a datagram; "": any code."""
    ipv4 = version == _IPV4
    begin = 0 if ipv4 else IPV6_HEADER
    return _status_line(HEADER if ipv4 else "", begin + DATAGRAM, codes)


def _status_line_tests(version: int) -> list[str]:
    """Return u32's tests for a status line that begins a TCP segment, or a frame in a segment.

    They assume IPv6 packets without extension headers, as Asterisk sends them.
    """
    begin = 0 if version == _IPV4 else IPV6_HEADER
    stream = STREAM[version]
    return [
        _status_line(stream, begin),
        f"{stream}{begin:#x}>>0x10=0x817e&&{_status_line(stream, begin + 4)}",
        f"{stream}{begin:#x}>>0x10=0x8100:0x817d&&{_status_line(stream, begin + 2)}",
    ]


def _status_line(way: str, position: int, codes: str = _CODES) -> str:
    """Return u32's test for "SIP/2.0" and one of ``codes``; "" if any code matches.

    ``way`` is the part of u32's expression that skips headers of variable length; "" if it skips none.
    ``position`` is the offset of the text after that.
    """
    begins = f"{way}{position:#x}=0x5349502f&&{way}{position + 4:#x}=0x322e3020"
    return f"{begins}&&{way}{position + 7:#x}={codes}" if codes else begins


def _limit(limit: Limit, version: int) -> list[IptablesRule]:
    packets = f"{limit.rate}/sec", f"{limit.burst}"
    second, refills = byte_budget(limit)
    octets = f"{second}kb/s", f"{second * refills}kb"
    return [
        *([IptablesRule(_total_limit("all", limit))] if limit.mode is LimitMode.OBSERVE else []),
        IptablesRule(f"-p udp {_hashlimit('udp', limit, version, *packets)}-g {_OVER}", OVER_LIMIT),
        IptablesRule(f"-p tcp {_hashlimit('tcp', limit, version, *packets)}-g {_OVER}", OVER_LIMIT),
        IptablesRule(
            f"-p tcp -m length --length {min(second * _KIBI + 1, 65_535)}:65535 -g {_OVER}", OVER_LIMIT
        ),
        IptablesRule(f"-p tcp {_hashlimit('bytes', limit, version, *octets)}-g {_OVER}", OVER_LIMIT),
        IptablesRule("-j RETURN", WITHIN_LIMIT),
    ]


def byte_budget(limit: Limit) -> tuple[int, int]:
    """Return the limit for the bytes of a source: kilobytes a second, and a number of refills.

    A source may send this budget each second. After a pause it may also send the refills, at least one. Each
    refill is as large as the budget of one second, because hashlimit has no smaller unit. The budget and its
    refills are together at most ``limit.burst`` guesses of 300 bytes. But the budget is at least one Ethernet
    frame: otherwise no full frame would ever pass, and TCP would repeat it without end.
    """
    whole = limit.burst * GUESS // _KIBI
    second = max(limit.rate * GUESS // _KIBI, _FRAME)
    refills = max(min(limit.burst // max(limit.rate, 1), whole // second) - 1, 1)
    return max(min(second, whole // (refills + 1)), _FRAME), refills


def _ration_chains(plan: FirewallPlan, version: int, target: str) -> dict[str, Sequence[IptablesRule]]:
    """Return the chains of the ration; ``target`` is the target that drops a packet."""
    ration = plan.ration
    mask = "" if version == _IPV4 else f" --hashlimit-dstmask {IPV6_SENDER}"
    table = (
        f"--hashlimit-htable-size {BUCKETS} --hashlimit-htable-max {MOST_LIMITED} "
        f"--hashlimit-htable-expire {_expiry(ration) * 1000}{mask}"
    )
    drop = f" -j {target}" if ration.mode is LimitMode.ENFORCE else " -j RETURN"
    total = IptablesRule(_total_limit("ration-all", ration), RATION_FULL)
    packets = f"-m hashlimit --hashlimit-above {ration.rate}/sec --hashlimit-burst {ration.burst}"
    budget, name = -(-ration.bytes_a_second // _KIBI), f"{ration.rate}-{ration.burst}"
    most = budget * _KIBI
    to_one = "--hashlimit-mode dstip --hashlimit-name ringfence-ration"
    return {
        _RATION: [total, IptablesRule(f"{packets} {to_one}-{name} {table}{drop}", OVER_RATION)],
        _BYTES: [
            *(IptablesRule(f"-p tcp {test} -j RETURN") for test in _unrationed_segments(plan, version)),
            total,
            IptablesRule(f"-m length --length {min(most + 1, 65_535)}:65535{drop}", OVER_RATION),
            IptablesRule(
                f"-m hashlimit --hashlimit-above {budget}kb/s {to_one}-bytes-{name} {table}{drop}",
                OVER_RATION,
            ),
        ],
    }


def _unrationed_segments(plan: FirewallPlan, version: int) -> Iterator[str]:
    """Yield the matches of TCP segments that the ration leaves out.

    They have no data, or begin a TLS handshake or, in a frame, an answer to a call (``contract.SERVED``).
    """
    yield from without_data(version)
    begin = 0 if version == _IPV4 else IPV6_HEADER
    for ports in port_matches("tcp", plan.sip_ports.tls, "dst"):
        handshake = f"{STREAM[version]}{begin:#x}>>0x10=0x1603"
        yield f'{ports.removeprefix("-p tcp ")}-m u32 --u32 "{handshake}"'
    for ports in port_matches("tcp", plan.sip_ports.streams, "dst"):
        for served in SERVED:
            test = begins(STREAM[version], begin, served)
            yield f'{ports.removeprefix("-p tcp ")}-m length --length 0:1500 -m u32 --u32 "{test}"'


def _total_limit(name: str, limit: Limit | Ration) -> str:
    """Build the rule by which a packet skips a limit if all addresses together would fill its table.

    The limiter needs the rule only in the mode observe, which must drop no packet.
    """
    return f"{over_all(f'{name}-{limit.rate}-{limit.burst}', _expiry(limit))}-j RETURN"


def _expiry(limit: Limit | Ration) -> int:
    """Return the seconds after which a limit forgets an address; by then its burst is available again."""
    return max(FLOOD_SECONDS, -(-limit.burst // max(limit.rate, 1)))


def _hashlimit(name: str, limit: Limit, version: int, above: str, burst: str) -> str:
    mask = "" if version == _IPV4 else f"--hashlimit-srcmask {IPV6_SENDER} "
    return (
        f"-m hashlimit --hashlimit-above {above} --hashlimit-burst {burst} --hashlimit-mode srcip "
        f"--hashlimit-name ringfence-{name}-{limit.rate}-{limit.burst} --hashlimit-htable-size {BUCKETS} "
        f"--hashlimit-htable-max {MOST_LIMITED} --hashlimit-htable-expire {_expiry(limit) * 1000} {mask}"
    )


def _over(plan: FirewallPlan, version: int) -> list[IptablesRule]:
    # The first rule counts a packet of a source that is already in the set. The second adds new sources only,
    # because adding an element again would set its counter to one.
    rules = [
        IptablesRule(f"-p {protocol} {rule}")
        for protocol, flood in (("udp", FLOOD[version, False]), ("tcp", FLOOD[version, True]))
        for rule in (
            f"-m set --match-set {flood} src",
            f"-j SET --add-set {flood} src --timeout {FLOOD_SECONDS}",
        )
    ]
    if plan.limit.mode is LimitMode.ENFORCE:
        rules += [*([IptablesRule(_LOG)] if plan.log else []), IptablesRule("-j DROP")]
    return rules


def _fence(plan: FirewallPlan, version: int, target: str) -> list[IptablesRule]:
    # The first rule spares the answers to what this host began. A rule with a direction matches no untracked
    # packet. The next two rules count a source as those of the limiter do (``_over``).
    name = FENCED[version]
    return [
        IptablesRule("-m conntrack --ctdir REPLY -j RETURN"),
        IptablesRule(f"-m set --match-set {name} src"),
        IptablesRule(f"-j SET --add-set {name} src --timeout {OUTSIDE_SECONDS}"),
        IptablesRule(f"-j {target if plan.fence is LimitMode.ENFORCE else 'RETURN'}", OUTSIDE),
    ]


def _reject(plan: FirewallPlan, version: int) -> list[IptablesRule]:
    rules = [IptablesRule(_LOG)] if plan.log else []
    how = _REJECTIONS[version, plan.action][0]
    if plan.action is BanAction.TCP_RESET:
        return [*rules, IptablesRule(f"-p tcp -j REJECT --reject-with {how}"), IptablesRule("-j DROP")]
    return [*rules, IptablesRule(f"-j REJECT --reject-with {how}")]


def counted_rules(rules: Rules) -> Iterable[tuple[str, str, int, str]]:
    """Yield the table, chain, position and kind of each rule that has a kind (``IptablesRule.kind``)."""
    return (
        (table, chain, position, rule.kind)
        for table, chains in rules.items()
        for chain, ordered in chains.items()
        for position, rule in enumerate(ordered)
        if rule.kind
    )
