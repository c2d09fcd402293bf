"""Resolves host names to addresses, and resolves them again when the TTL of the DNS is over.

A carrier is configured by name, and its addresses change. A name stands for its own addresses and for those
of its SIP servers (SRV records), because some names have only SRV records. ``/etc/hosts`` takes precedence
over the DNS, as usual. The system's resolver is not used, because it blocks a thread for a minute if a server
does not answer, and other parts of the daemon need the same threads.

An address stays for a day (``KEPT_FOR``) after the latest answer that contained it. Only the time counts in
which the DNS has addresses of the name: while the servers are down, or no longer know the name, all known
addresses stay. While only some of the queries fail, their last replies count. Each failure is reported. The
numbers of names and of addresses are limited.

If ``/etc/hosts`` has the name, only its addresses there count, from the next look at the file on. Lines of a
file do not rotate, as DNS answers do.
"""

import asyncio
import os
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import islice
from math import inf
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import Factory, define, evolve, frozen

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.errors import HostError
from ringfence.values.network import Network
from ringfence.values.text import printable

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver
    from dns.resolver import Answer


# -- the names and addresses in ``/etc/hosts``. The file is read again only when it has changed
#
# On some hosts the file has a megabyte, because it lists the servers of advertisers to block them. So it is
# parsed in a thread, and once for all names.


HOSTS_FILE = Path("/etc/hosts")
MAX_SIZE = 1024 * 1024  # bytes that are read

_State = tuple[int, int, int, int]


class HostsFile:
    """The names and addresses in a file like ``/etc/hosts``. ``reads`` counts how often it was parsed."""

    def __init__(self, path: Path = HOSTS_FILE) -> None:
        self.reads = 0
        self._path = path
        self._state: _State | None = None
        self._addresses: dict[str, list[str]] = {}
        self._turn = asyncio.Lock()

    async def addresses(self, name: str) -> list[str]:
        """Return the addresses of ``name`` (in lower case) as written in the file.

        Return [] if the file lacks the name or cannot be read.
        """
        async with self._turn:
            try:
                state = _state(self._path.stat())
                if state != self._state:
                    self._addresses = await asyncio.to_thread(_parsed, self._path)
                    self._state = state
                    self.reads += 1
            except OSError:
                self._state, self._addresses = None, {}
            return self._addresses.get(name, [])


def _state(found: os.stat_result) -> _State:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _parsed(path: Path) -> dict[str, list[str]]:
    with path.open("rb") as file:
        text = file.read(MAX_SIZE).decode("utf-8", "replace")
    addresses: dict[str, list[str]] = {}
    for line in text.split("\n"):
        address, *names = line.partition("#")[0].split() or [""]
        for name in dict.fromkeys(map(str.lower, names)):
            addresses.setdefault(name, []).append(address)
    return addresses


MOST_NAMES = 1_000
MOST_ADDRESSES = 64  # for each name
MOST_SERVERS = 16  # SIP servers of each name, from its SRV records
AT_ONCE = 16
PATIENCE = 5.0  # time limit of a DNS query in seconds

SHORTEST = 30.0
LONGEST = 300.0
"""The maximum time, in seconds, until a host name is resolved again (the minimum is ``SHORTEST``).

After a failure the time may be shorter than ``SHORTEST``.
"""

KEPT_FOR = 86_400.0
"""Seconds that an address of a name stays after the latest answer that contained it.

An answer may contain only some of a name's addresses, and the next answer others.
"""

FIRST_RETRY = 2.0
SERVICES = ("_sip._udp", "_sip._tcp", "_sips._tcp")

Answers = Mapping[str, frozenset[Network]]
"""The addresses of each host name, as networks of one address."""

Ages = Mapping[str, Mapping[Network, float]]
"""The addresses of each host name, as networks of one address, each with its *age*.

This is the time since the latest answer that contained the address, in seconds. A pause between two answers
with addresses of the name counts as ``LONGEST`` at most. So an outage of the DNS or of the daemon ends none.
"""


@frozen
class ResolvedNames:
    """The addresses of a host name, as networks of one address, and the seconds for which they are valid.

    ``trouble`` is why the addresses may be incomplete; "" if they are complete. ``replies`` are the replies
    to all queries. For a query that failed, the last reply counts. ``by_hand``: ``/etc/hosts`` has the
    addresses.
    """

    networks: frozenset[Network]
    seconds: float = LONGEST
    trouble: str = ""
    replies: "Replies" = Factory(dict)
    by_hand: bool = False

    @property
    def answered(self) -> bool:
        """Whether ``/etc/hosts``, or a query that did not fail, had addresses of the name."""
        replies = self.replies.values()
        return not self.trouble or any(reply.networks and not reply.trouble for reply in replies)


@define
class _Name:
    """A host name that is followed. ``due`` is the time of its next query (of the event loop's clock).

    ``waited`` is the latest pause after a failure in seconds, and ``trouble`` the present failure ("" if
    none). ``found`` is the number of addresses that were found last, before they were cut to
    ``MOST_ADDRESSES``. ``replies`` are the latest replies to its queries. ``ages`` are its addresses with
    their ages, those of the latest answer first. ``answered`` is when an answer had addresses last.
    """

    due: float = 0.0
    waited: float = FIRST_RETRY
    trouble: str = ""
    found: int = 0
    replies: "Replies" = Factory(dict)
    ages: Mapping[Network, float] = Factory(dict)
    answered: float = -inf


class Names:
    """Resolves the host names that parts of the daemon want, and follows changes of their addresses.

    ``known`` are the addresses that an earlier run of the daemon saved. They count from the start, before any
    part wants their names. ``nameservers`` (addresses) and ``port`` replace the DNS servers that this host
    has configured. ``patience`` is the time limit of a query, and ``shortest`` the shortest time until a name
    is resolved again, both in seconds.
    """

    def __init__(
        self,
        known: Ages | None = None,
        *,
        nameservers: Sequence[str] = (),
        port: int = 53,
        patience: float = PATIENCE,
        shortest: float = SHORTEST,
    ) -> None:
        self.changed = asyncio.Event()
        """An event that is set when the addresses of a followed host name have changed."""
        self._known = dict(known or {})  # without the names that a part has wanted since then
        self._began = time.monotonic()
        self._nameservers = tuple(nameservers)
        self._port = port
        self._patience = patience
        self._shortest = shortest
        self._wanted: dict[str, frozenset[str]] = {}
        self._names: dict[str, _Name] = {}
        self._left_out = 0
        self._told = asyncio.Event()
        self._hosts = HostsFile(HOSTS_FILE)
        self._chance = random.Random()  # noqa: S311 - jitter, no secret

    @property
    def followed(self) -> frozenset[str]:
        """The followed host names, whether they have addresses or not."""
        return frozenset(self._names)

    @property
    def ages(self) -> Ages:
        """The known addresses of each host name with their ages, also of names that no part wants yet."""
        return {**self._followed, **self._known}

    @property
    def answers(self) -> Answers:
        """The known addresses of each host name, also of names that no part wants yet."""
        return {name: frozenset(ages) for name, ages in self.ages.items()}

    @property
    def saved(self) -> Ages:
        """What the next run of the daemon must know: the ages of at most ``MOST_NAMES`` names.

        The names of an earlier run that no part wants are among them for a day (``KEPT_FOR``) at most.
        """
        ran = time.monotonic() - self._began
        unwanted: Ages = {name: aged for name, ages in self._known.items() if (aged := _aged(ages, ran))}
        return dict(islice({**self._followed, **unwanted}.items(), MOST_NAMES))

    @property
    def _followed(self) -> Ages:
        """The known addresses of each followed host name with their ages."""
        return {name: mine.ages for name, mine in self._names.items() if mine.ages}

    @property
    def alarms(self) -> list[Alarm]:
        """The present alarms about host names, such as one that cannot be resolved."""
        alarms = []
        for name, mine in sorted(self._names.items()):
            if mine.trouble:
                alarms.append(Alarm(AlarmCode.NAME_UNRESOLVED, name, mine.trouble))
            if mine.found > MOST_ADDRESSES:
                text = f"has {mine.found} addresses; {MOST_ADDRESSES} of them count"
                alarms.append(Alarm(AlarmCode.NAME_TOO_MANY_ADDRESSES, name, text))
        if self._left_out:
            text = f"{self._left_out} names are not followed: {MOST_NAMES} are"
            alarms.append(Alarm(AlarmCode.NAME_LEFT_OUT, "", text))
        return alarms

    def want(self, names: Iterable[str], by: str = "") -> None:
        """Follow ``names`` for the part ``by`` of the daemon, instead of the names that it wanted before.

        The addresses of names that no part wants any more are forgotten. Those of an earlier run stay until a
        part has wanted their name: at the start, the parts want their names one after another.
        """
        self._wanted[by] = frozenset(names)
        wanted = sorted(frozenset().union(*self._wanted.values()))
        self._left_out = max(0, len(wanted) - MOST_NAMES)
        self._names = {
            name: self._names.get(name) or _Name(ages=self._known.pop(name, {}))
            for name in wanted[:MOST_NAMES]
        }
        self._told.set()

    def forget(self, network: Network) -> None:
        """Forget an address, as a network, of each name whose latest answer did not contain it."""
        for name, ages in self.ages.items():
            if not ages.get(network):
                continue
            left = {one: age for one, age in ages.items() if one != network}
            if name in self._known:
                self._known[name] = left
            else:
                self._names[name].ages = left
            self.changed.set()

    async def run(self) -> None:
        """Resolve host names until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._told.clear()
            due = [name for name, mine in self._names.items() if mine.due <= loop.time()]
            if due:
                await self._ask_all(due)
                continue
            first = min((mine.due for mine in self._names.values()), default=None)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(first):
                    await self._told.wait()

    async def _ask_all(self, names: Sequence[str]) -> None:
        turn = asyncio.Semaphore(AT_ONCE)
        # A new resolver each time, because the host's list of DNS servers may have changed.
        resolver: Resolver | HostError
        try:
            resolver = _resolver(self._nameservers, self._port)
        except HostError as error:
            resolver = error

        async def ask(name: str) -> None:
            async with turn:
                mine = self._names.get(name, _Name())
                found = await find(name, resolver, self._patience, self._hosts, mine.replies)
                self._take(name, found, asyncio.get_running_loop().time())

        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(ask(name))

    def _take(self, name: str, found: ResolvedNames, now: float) -> None:
        """Record the result of resolving ``name`` at ``now``; set ``changed`` if its addresses changed."""
        mine = self._names.get(name)
        if mine is None:
            return  # no part of the daemon wants this name any more
        before = older = mine.ages
        if found.answered:
            older = {} if found.by_hand else _aged(before, min(now - mine.answered, LONGEST))
            mine.answered = now
        latest = dict.fromkeys(_bounded(found.networks), 0.0)
        rest = {one: age for one, age in older.items() if one not in latest}
        mine.ages = dict(islice({**latest, **rest}.items(), MOST_ADDRESSES))
        mine.found = len(found.networks)
        mine.replies = found.replies
        mine.trouble = found.trouble
        if found.trouble:
            mine.waited = min(LONGEST, self._chance.uniform(mine.waited, mine.waited * 3))
            mine.due = now + mine.waited
            mine.trouble += "; its last addresses stay" if before else ""
        else:
            mine.waited = FIRST_RETRY
            mine.due = now + min(max(found.seconds, self._shortest), LONGEST)
        if mine.ages.keys() != before.keys():
            self.changed.set()


def _aged(ages: Mapping[Network, float], seconds: float) -> dict[Network, float]:
    """Return ``ages`` as they are ``seconds`` later, without the addresses that no longer count."""
    return {one: age + seconds for one, age in ages.items() if age + seconds < KEPT_FOR}


def _bounded(networks: frozenset[Network]) -> frozenset[Network]:
    """Return the first ``MOST_ADDRESSES`` of ``networks``, IPv4 before IPv6."""
    return frozenset(sorted(networks, key=attrgetter("version", "network_address"))[:MOST_ADDRESSES])


async def find(
    name: str,
    resolver: "Resolver | HostError",
    patience: float,
    hosts: HostsFile,
    last: "Replies",
) -> ResolvedNames:
    """Resolve ``name`` by ``/etc/hosts``, or else by the DNS.

    ``resolver`` is an error if the DNS cannot be asked. ``patience`` is the time limit of a query in seconds.
    ``last`` are the replies of the last time, which count for queries that fail.
    """
    by_hand = _networks(await hosts.addresses(name))
    if by_hand:
        return ResolvedNames(by_hand, by_hand=True)
    services = [(f"{service}.{name}", "SRV") for service in SERVICES]
    replies = await _asked(resolver, [(name, "A"), (name, "AAAA"), *services], patience, last)
    servers = sorted({server for reply in replies.values() for server in reply.servers})[:MOST_SERVERS]
    kinds = ("A", "AAAA")
    replies |= await _asked(
        resolver, [(server, kind) for server in servers for kind in kinds], patience, last
    )
    networks = frozenset(network for reply in replies.values() for network in reply.networks)
    trouble = next((reply.trouble for reply in replies.values() if reply.trouble), "")
    if not networks and not trouble:
        trouble = "the DNS knows no address of it"
    seconds = min(reply.seconds for reply in replies.values())
    kept = {one: evolve(reply, networks=_bounded(reply.networks)) for one, reply in replies.items()}
    return ResolvedNames(networks, seconds, trouble, kept)


async def _asked(
    resolver: "Resolver | HostError", questions: Sequence[tuple[str, str]], patience: float, last: "Replies"
) -> "dict[tuple[str, str], _Reply]":
    """Ask all ``questions``, each a name and a type; return the replies. A failed one has its last content.

    If ``resolver`` is an error, each query fails.
    """
    replies = (
        [_Reply(trouble=str(resolver))] * len(questions)
        if isinstance(resolver, HostError)
        else await asyncio.gather(*(_reply(resolver, name, kind, patience) for name, kind in questions))
    )
    return {
        question: evolve(last[question], trouble=reply.trouble)
        if reply.trouble and question in last
        else reply
        for question, reply in zip(questions, replies, strict=True)
    }


@frozen
class _Reply:
    """The reply to one DNS query: addresses, or names of servers; it may be empty.

    ``seconds`` is its TTL. ``trouble`` is why the query failed; "" if it did not.
    """

    networks: frozenset[Network] = frozenset()
    servers: frozenset[str] = frozenset()
    seconds: float = LONGEST
    trouble: str = ""


Replies = Mapping[tuple[str, str], _Reply]
"""The reply to each query: a name and a type."""


def _resolver(nameservers: Sequence[str], port: int) -> "Resolver":
    """Return an object that asks the DNS. Raise HostError if none can be made.

    The library would load some of these modules at the first query only, and ignore the lack of others.
    """
    try:
        import dns._asyncio_backend  # noqa: PLC0415 - 7 MB, loaded where a name is followed
        import dns.asyncresolver  # noqa: PLC0415
        import dns.exception  # noqa: PLC0415
        import dns.rdtypes.IN.A  # noqa: PLC0415
        import dns.rdtypes.IN.AAAA  # noqa: PLC0415
        import dns.rdtypes.IN.SRV  # noqa: PLC0415
        import dns.resolver  # noqa: PLC0415
    except (ImportError, OSError) as error:  # for example, the limit of open files is reached
        raise HostError(f"the DNS library cannot be loaded: {error}") from None
    try:
        resolver = dns.asyncresolver.Resolver(configure=not nameservers)
    except (dns.resolver.NoResolverConfiguration, OSError):
        raise HostError("no DNS server is configured in /etc/resolv.conf") from None
    except (dns.exception.DNSException, ValueError) as error:  # it refuses lines that glibc ignores
        reason = printable(str(error))[:120]
        raise HostError(f"/etc/resolv.conf, or the name of this host, is invalid: {reason}") from None
    if nameservers:
        resolver.nameservers = list(nameservers)
        resolver.port = port
    return resolver


async def _reply(resolver: "Resolver", name: str, kind: str, patience: float) -> _Reply:
    """Send one DNS query of the type ``kind``; return the reply, with ``trouble`` only after a failure.

    A reply that takes more than ``patience`` seconds is a failure.
    """
    import dns.exception  # noqa: PLC0415 - loaded where a name is followed
    import dns.name  # noqa: PLC0415
    import dns.resolver  # noqa: PLC0415

    try:
        answer = await resolver.resolve(
            dns.name.from_text(name), kind, raise_on_no_answer=False, lifetime=patience, search=False
        )
    except dns.resolver.NXDOMAIN:
        return _Reply()
    except dns.exception.Timeout:
        return _Reply(trouble="the DNS does not answer")
    except (dns.exception.DNSException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        trouble = f"the DNS gives no answer to {kind}: {printable(reason)[:120]}"
        return _Reply(trouble=trouble)
    if answer.rrset is None:
        return _Reply()
    if kind == "SRV":
        return _Reply(servers=_servers(answer), seconds=answer.rrset.ttl)
    return _Reply(networks=_networks(str(record) for record in answer.rrset), seconds=answer.rrset.ttl)


def _servers(answer: "Answer") -> frozenset[str]:
    """Return the first ``MOST_SERVERS`` names in SRV records. The name "." means that there is no server."""
    records: Iterable[Any] = answer.rrset or ()
    found = {text for record in records if (text := record.target.to_text()) != "."}
    return frozenset(sorted(found)[:MOST_SERVERS])


def _networks(texts: Iterable[str]) -> frozenset[Network]:
    """Parse addresses as networks; leave out unspecified, loopback and multicast addresses."""
    networks: set[Network] = set()
    for text in texts:
        with suppress(ValueError):
            address = ip_address(text)
            if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
                address = address.ipv4_mapped
            if not (address.is_unspecified or address.is_loopback or address.is_multicast):
                networks.add(IPv6Network(address) if address.version == 6 else IPv4Network(address))  # noqa: PLR2004
    return frozenset(networks)
