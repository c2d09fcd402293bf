"""The ipset backend: bans are elements of two sets, rules by iptables drop what is in them.

Sets ``ringfence4`` and ``ringfence6``, ``hash:net`` with timeouts and counters: addresses and prefixes side
by side (a /32 within a banned /24 is an element of its own), expiry by the kernel, packets counted.
A set of ours that exists is adopted with all it holds: a restart has no moment without protection.
An adopted set keeps the size it was made with; ``ringfence off`` and ``on`` make it anew.

Bans go by netlink only, no process is started for one. What the kernel refuses is reported by element and the
rest is sent again; what was not acknowledged is an error, also when it may have been done: the caller
repeats, and every change may be repeated.
"""

import errno
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from ringfence.errors import (
    FirewallError,
    FirewallPermissionError,
    FirewallUnsupportedError,
    SetFullError,
)
from ringfence.firewall import ipset_messages as messages
from ringfence.firewall import iptables, nft_messages
from ringfence.firewall.contract import (
    Add,
    Change,
    Element,
    Flooder,
    Opened,
    Outcome,
    Part,
    Plan,
    Pulse,
    Roll,
    Usage,
)
from ringfence.firewall.ipset_messages import Code
from ringfence.firewall.netlink import Conversation, NetlinkError
from ringfence.model import Network

SETS: Mapping[int, str] = {4: "ringfence4", 6: "ringfence6"}
# iptables' set match opens a raw socket to ask the set's number, hence the second one.
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}
# 128 kB of buckets, and 100 000 elements go in without the set being rebuilt more than twice.
_HASHSIZE = 16_384
# After so many refusals in one message the rest goes one by one: a full set refuses every new element, and
# sending the tail again for each would be quadratic.
_PATIENCE = 3
_LOG_MEND = "mend: `modprobe xt_u32 xt_NFLOG xt_addrtype ipt_rpfilter ip6t_rpfilter`"
# The kernel frees the rules that used a set some milliseconds after iptables-nft has removed them.
_RELEASE = 2.0


class IpsetBackend:
    """Bans in the kernel by ipset and iptables; see ``contract.Backend`` for the verbs.

    ``proc`` is where procfs is mounted.
    """

    name = "ipset"
    enforces = True

    def __init__(self, plan: Plan | None = None, *, proc: Path = Path("/proc")) -> None:
        self.plan = plan if plan is not None else Plan()
        self._proc = proc
        self._kernel = Conversation()
        self._families: dict[int, str | None] = {}

    def look(self) -> list[Part]:
        """Say what stands in the way of ``open``, part by part; changes nothing."""
        parts = [
            _part("capabilities of this process", self._require_capabilities),
            _part("ipset in the kernel", partial(_require_ipset, self._kernel)),
        ]
        return parts + [
            _part(f"iptables for IPv{version}", partial(self._guard, version)) for version in SETS
        ]

    def open(self) -> Opened:
        """Put sets and rules in place. Idempotent; heals. See ``contract.Backend.open`` for the errors."""
        families, tools = self._preflight()
        heads = {version: self._head(version) for version in tools}
        for head in heads.values():
            if head is not None:
                _require_ours(head)
        for version, head in heads.items():
            if head is None:
                self._create(version)
        unlogged = {version: self._install(version, found) for version, found in tools.items()}
        self._families = families
        return Opened(
            families,
            adopted=sum(head.elements for head in heads.values() if head is not None),
            wire="; ".join(f"IPv{version}: {why}" for version, why in unlogged.items() if why) or None,
        )

    def _install(self, version: int, tools: iptables.Tools) -> str | None:
        """Put the rules in place; say why the log rule is not among them, None where it is or need not be.

        A kernel that cannot have the log rule refuses the whole transaction: then the drops go in alone.
        """
        new_table = self._lacks_table(version)
        install = partial(iptables.install, tools, SETS[version], new_table=new_table)
        if self.plan.log_group is None:
            install()
            return None
        try:
            install(log=iptables.Log(version, self.plan.log_group))
        except FirewallError as error:
            install()
            return f"{error}; {_LOG_MEND}"
        return None

    def _preflight(self) -> tuple[dict[int, str | None], dict[int, iptables.Tools]]:
        """Say of each IP version why it cannot be guarded (None: it can), and by what; change nothing."""
        self._require_capabilities()
        _require_ipset(self._kernel)
        families: dict[int, str | None] = {}
        tools: dict[int, iptables.Tools] = {}
        for version in SETS:
            try:
                tools[version] = self._guard(version)
                families[version] = None
            except FirewallUnsupportedError as error:
                families[version] = str(error)
        if not tools:
            raise FirewallUnsupportedError("; ".join(str(reason) for reason in families.values()))
        return families, tools

    def _guard(self, version: int) -> iptables.Tools:
        if version == 6 and not (self._proc / "self/net/if_inet6").exists():  # noqa: PLR2004 - IPv6
            raise FirewallUnsupportedError("this host has no IPv6")
        return iptables.find_tools(version)

    def _require_capabilities(self) -> None:
        try:
            status = (self._proc / "self/status").read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise FirewallUnsupportedError(f"procfs is needed at {self._proc}: {error}") from error
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        held = int(fields.get("CapEff", "0"), 16)
        lacking = [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1]
        if lacking:
            raise FirewallPermissionError(
                f"the firewall needs {' and '.join(lacking)}, which this process lacks; "
                "the systemd unit grants it (AmbientCapabilities=), by hand: run as root"
            )

    def _head(self, version: int) -> messages.SetHead | None:
        try:
            answers = self._kernel.request(messages.list_head(SETS[version]))
        except NetlinkError as error:
            if error.code == errno.ENOENT:
                return None
            raise
        return messages.parse_head(answers[0]) if answers else None

    def _create(self, version: int) -> None:
        hashsize = min(_HASHSIZE, self.plan.maxelem)
        message = messages.create(SETS[version], version, hashsize=hashsize, maxelem=self.plan.maxelem)
        try:
            self._kernel.request(message)
        except NetlinkError as error:
            raise FirewallError(f"set {SETS[version]} could not be made: {error}") from error

    def _lacks_table(self, version: int) -> bool:
        try:
            self._kernel.request(nft_messages.table_query(version))
        except NetlinkError as error:
            return error.code == errno.ENOENT  # anything else: a kernel without nftables
        return False

    def _drop_table(self, version: int) -> None:
        try:
            self._kernel.request(*nft_messages.delete_empty_table(version))
        except NetlinkError as error:
            if error.code not in (errno.EBUSY, errno.ENOENT):  # in use by now, or gone with iptables-legacy
                raise

    def apply(self, batch: Sequence[Change]) -> list[Outcome]:
        """Carry out every change, in order within each IP version. Idempotent; needs ``open``."""
        if not self._families:
            raise FirewallError("the firewall is not open: nothing can be banned")
        outcomes: dict[int, Outcome] = {}
        lost: FirewallError | None = None
        for version, reason in self._families.items():
            places = [place for place, change in enumerate(batch) if change.network.version == version]
            for part in _parts(batch, places):
                changes = [batch[place] for place in part]
                if reason is not None:
                    done = _failed(changes, FirewallUnsupportedError(reason))
                elif lost is not None:  # another request would only wait again
                    done = _failed(changes, lost)
                else:
                    done, lost = self._send(SETS[version], changes)
                outcomes.update(zip(part, done, strict=True))
        return [outcomes[place] for place in range(len(batch))]

    def _send(self, name: str, changes: Sequence[Change]) -> tuple[list[Outcome], FirewallError | None]:
        """Send changes of one verb, and again what stood behind a refused one.

        The error beside the outcomes is that of a conversation that broke.
        """
        outcomes: list[Outcome] = []
        refused = 0
        while rest := changes[len(outcomes) :]:
            sent = rest[:1] if refused > _PATIENCE else rest
            try:
                self._kernel.request(_message(name, sent))
            except NetlinkError as error:
                place = messages.refused_place(error.request)
                if place is None or place >= len(sent):
                    return outcomes + _failed(rest, _explain(name, error)), None
                outcomes += map(_done, sent[:place])
                outcomes += _failed(sent[place : place + 1], _explain(name, error))
                refused += 1
            except FirewallError as error:
                return outcomes + _failed(rest, error), error
            else:
                outcomes += map(_done, sent)
        return outcomes, None

    def fill(self, roll: Roll, networks: Iterable[Network]) -> None:
        """Not here yet."""

    def pulse(self) -> Pulse:
        """Not here yet."""
        return Pulse()

    def watch_fd(self) -> None:
        """The kernel tells of no change to an ipset."""

    def usage(self) -> Usage:
        """Not here yet."""
        return Usage()

    def flooding(self) -> Sequence[Flooder]:
        """Not here yet."""
        return ()

    def list(self) -> Iterator[Element]:
        """Read every ban from the kernel; empty where no set of ours exists.

        100 000 elements take half a second, so it has a socket of its own: a thread may list while the event
        loop bans.
        """
        with Conversation() as kernel:
            for name in SETS.values():
                try:
                    answers = kernel.request(messages.list_elements(name))
                except NetlinkError as error:
                    if error.code == errno.ENOENT:
                        continue
                    _require_ipset(kernel)  # says so if that is what is lacking
                    raise
                for answer in answers:
                    yield from messages.parse_listed(answer).elements

    def flush(self) -> None:
        """Remove our rules, chains and sets. Idempotent; works without ``open``.

        Raises FirewallError where a rule that is not ours uses a set of ours: that set stays.
        """
        self._require_capabilities()
        for version in SETS:
            try:
                tools = iptables.find_tools(version)
            except FirewallUnsupportedError:
                continue  # without the tool no rule of it: if there is one after all, the set stays in use
            if iptables.remove(tools):
                self._drop_table(version)
        _require_ipset(self._kernel)
        for name in SETS.values():
            self._destroy(name)
        self._families = {}

    def _destroy(self, name: str) -> None:
        deadline = time.monotonic() + _RELEASE
        while True:
            try:
                self._kernel.request(messages.destroy(name))
            except NetlinkError as error:
                if error.code == errno.ENOENT:
                    return
                if error.code != Code.BUSY:
                    raise
                if time.monotonic() > deadline:
                    raise FirewallError(
                        f"set {name} is used by a rule that is not ringfence's: find it with "
                        f"`iptables-save | grep {name}` (also iptables-legacy-save, ip6tables-save)"
                    ) from error
                time.sleep(0.01)
            else:
                return

    def close(self) -> None:
        """Give back the socket. Idempotent."""
        self._kernel.close()


def _part(what: str, require: Callable[[], object]) -> Part:
    try:
        require()
    except FirewallError as error:
        return Part(what, str(error))
    return Part(what)


def _require_ipset(kernel: Conversation) -> None:
    try:
        kernel.request(messages.protocol())
    except NetlinkError as error:
        raise FirewallUnsupportedError(
            "this kernel has no ipset; mend: `modprobe ip_set ip_set_hash_net xt_set` (CONFIG_IP_SET; "
            "in a container: on its host)"
        ) from error
    try:
        kernel.request(messages.type_query(4))
    except NetlinkError as error:
        raise FirewallUnsupportedError(
            "this kernel's ipset has no hash:net (CONFIG_IP_SET_HASH_NET); mend: `modprobe ip_set_hash_net`"
        ) from error


def _require_ours(head: messages.SetHead) -> None:
    version = next(version for version, name in SETS.items() if name == head.name)
    lacks = []
    if head.type_name != messages.SET_TYPE or head.version != version:
        lacks.append(
            f"is a {head.type_name} for IPv{head.version} and not a {messages.SET_TYPE} for IPv{version}"
        )
    if not head.timeout:
        lacks.append("has no timeouts")
    if not head.counters:
        lacks.append("has no counters")
    if lacks:
        raise FirewallError(
            f"set {head.name} exists and {', '.join(lacks)}; "
            f"mend: `ringfence off`, or `ipset destroy {head.name}`"
        )


def _parts(batch: Sequence[Change], places: Sequence[int]) -> list[Sequence[int]]:
    """Cut places into runs of one verb, none longer than a message may be."""
    parts: list[Sequence[int]] = []
    for _verb, group in itertools.groupby(places, key=lambda place: type(batch[place])):
        run = tuple(group)
        parts += [run[at : at + messages.MAX_ELEMENTS] for at in range(0, len(run), messages.MAX_ELEMENTS)]
    return parts


def _message(name: str, changes: Sequence[Change]) -> bytes:
    adds = [
        (change.network, messages.whole_seconds(change.timeout))
        for change in changes
        if isinstance(change, Add)
    ]
    return messages.add(name, adds) if adds else messages.delete(name, [change.network for change in changes])


def _done(change: Change) -> Outcome:
    timeout = messages.whole_seconds(change.timeout) if isinstance(change, Add) else 0
    return Outcome(change, timeout=float(timeout))


def _failed(changes: Sequence[Change], error: FirewallError) -> list[Outcome]:
    return [Outcome(change, error=error) for change in changes]


def _explain(name: str, error: NetlinkError) -> FirewallError:
    if error.code == Code.HASH_FULL:
        return SetFullError(
            f"set {name} is full; mend: a larger set, then `ringfence off` and `ringfence on`"
        )
    if error.code == Code.INVALID_CIDR:
        return FirewallError("the kernel bans no /0: it is everybody")
    if error.code == errno.ENOENT:
        return FirewallError(
            f"set {name} is gone: somebody destroyed it; opening the firewall again makes it anew"
        )
    return error
