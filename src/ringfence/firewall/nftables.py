"""The nftables backend: an own table ``inet ringfence``, bans as elements of its sets.

``nft_rules.py`` says what the table is. It goes in by ``nft -f -``, one transaction of some five
milliseconds: at the start, when a plan changes, when something of ours was changed by others, and when
a network is banned whose prefix length has no set yet (the text alone says which rules belong together, and
it is rare). Rules are replaced then while sets keep what they hold, and a table that is there is adopted.
Bans themselves start no process (``nft_changes.py``).

Everything here takes CAP_NET_ADMIN alone.

What others do to the table is seen at once: the kernel tells of every transaction and whose it was
(``nft_watch.py``). Where it was not ours, what stands is compared with what stood after our own installation.
What is more than one chunk goes in while not listening, since the kernel would write 8 kB for each element:
a change of others' meanwhile shows in the number of the generation.
"""

import errno
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from ipaddress import ip_network
from pathlib import Path

from attrs import evolve, frozen

from ringfence.errors import FirewallError, FirewallUnsupportedError
from ringfence.firewall import nft_elements as elements
from ringfence.firewall import nft_messages as messages
from ringfence.firewall.contract import (
    Add,
    Change,
    Element,
    Flooder,
    Limit,
    LimitMode,
    Opened,
    Outcome,
    Part,
    Plan,
    Pulse,
    Remove,
    Roll,
    RuleUse,
    Usage,
)
from ringfence.firewall.needs import need, require_capabilities
from ringfence.firewall.netlink import Conversation, NetlinkError, NetlinkInterruptedError
from ringfence.firewall.nft_changes import Changes, renews
from ringfence.firewall.nft_rolls import Filling, Rolls
from ringfence.firewall.nft_rules import (
    COUNTERS,
    TABLE,
    VERSIONS,
    BanSet,
    Ruleset,
    ruleset,
    text_of,
    usual_sets,
)
from ringfence.firewall.nft_state import State, difference, read_sets, read_state, require_ours
from ringfence.firewall.nft_tool import find_nft, run_nft
from ringfence.firewall.nft_watch import Watch
from ringfence.model import Network, Scope

_TRIES = 3
_UNKNOWN = Outcome(Remove(ip_network("0.0.0.0/0")), error=FirewallError("nothing is known of it"))
_LONG = 30.0  # seconds: for what takes the kernel half a second where nothing else is done
_LIMITER_MEND = "mend: `modprobe nft_limit nft_fib_inet`"
_LOG_MEND = "mend: `modprobe nft_log nfnetlink_log nft_fib_inet`"


@frozen
class _Standing:
    """What was put in place last, and what the kernel made of it.

    ``plan`` is what was ``asked`` for without what the kernel refused, ``wire`` and ``limiter`` why it did.
    """

    asked: Plan
    plan: Plan
    state: State
    wire: str | None
    limiter: str | None


class NftablesBackend:
    """Bans in the kernel by nftables; see ``contract.Backend`` for the verbs.

    ``proc`` is where procfs is mounted, ``release`` the kernel's (for what its elements can do).
    """

    name = "nftables"
    enforces = True

    def __init__(
        self, plan: Plan | None = None, *, proc: Path = Path("/proc"), release: str | None = None
    ) -> None:
        self.plan = plan if plan is not None else Plan()
        self._proc = proc
        self._kernel = Conversation(extended=True)
        self._modern = renews(release or os.uname().release)
        self._families: dict[int, str | None] = {}
        self._standing: _Standing | None = None
        self._rolls = Rolls()
        self._watch: Watch | None = None
        self._suspect = False
        self._changed = False

    def look(self) -> list[Part]:
        """Say what stands in the way of ``open``, part by part; changes nothing."""
        return [
            need("capabilities of this process", self._require_capability),
            need("nftables in the kernel", partial(_require_kernel, self._kernel)),
            need("nft", find_nft),
        ]

    def open(self) -> Opened:
        """Put table, sets and rules in place. Idempotent; heals. See ``contract.Backend.open``."""
        tool = self._preflight()
        self._listen()
        before = read_state(self._kernel)
        if before is not None:
            require_ours(before)
        had, adopted = self._standing, self._count()
        if had is None or had.asked != self.plan or had.state != before:
            standing = self._install(tool, self.plan, before)
        else:
            standing = had
        self._standing, self._suspect = standing, False
        healed = _damaged(had.state if had is not None else None, before, standing.state)
        if healed:
            self._rolls.forget()
        return Opened(self._families, adopted, standing.wire, standing.limiter, healed)

    def _preflight(self) -> str:
        """Give the tool, or raise for what is lacking; change nothing."""
        self._require_capability()
        _require_kernel(self._kernel)
        tool = find_nft()
        lacking = None if (self._proc / "self/net/if_inet6").exists() else "this host has no IPv6"
        self._families = {4: None, 6: lacking}
        return tool

    def _require_capability(self) -> None:
        require_capabilities(self._proc, "CAP_NET_ADMIN")

    def _listen(self) -> None:
        """Listen for changes from now on; where that cannot be, every pulse compares."""
        if self._watch is None:
            with suppress(OSError):
                self._watch = Watch()

    def _count(self) -> int:
        number = self._known(read_sets(self._kernel))
        return sum(1 for _ in self.list()) if number is None else number

    @staticmethod
    def _known(heads: Iterable[messages.SetHead]) -> int | None:
        """Give how many bans there are; None where the kernel does not count."""
        numbers = [head.elements for head in heads if BanSet.read(head.name) is not None]
        known = [number for number in numbers if number is not None]
        return sum(known) if len(known) == len(numbers) else None

    def _install(self, tool: str, plan: Plan, before: State | None) -> _Standing:
        """Put the rules of ``plan`` in place, without what this kernel refuses beside the drops."""
        bans = usual_sets() if before is None else usual_sets() | before.bans
        refused: FirewallError | None = None
        for tried, wire, limiter in _variants(plan):
            try:
                state = self._put(tool, ruleset(tried, bans))
            except FirewallUnsupportedError:
                raise
            except FirewallError as error:
                refused = refused or error
            else:
                return _Standing(
                    plan,
                    tried,
                    state,
                    f"{refused}; {_LOG_MEND}" if wire and refused else None,
                    f"{refused}; {_LIMITER_MEND}" if limiter and refused else None,
                )
        raise refused or FirewallError("no rules at all could be put in place")

    def _put(self, tool: str, rules: Ruleset) -> State:
        """Put ``rules`` in place and give what stands then: again where somebody changed it in between."""
        for _ in range(_TRIES):
            before, ports = read_state(self._kernel), []
            if before is not None and before.table.dormant:  # a chain and the waking refuse each other
                ports.append(run_nft(tool, f"add table inet {TABLE}\n"))
            stale = before.stale(rules) if before is not None else ()
            ports.append(run_nft(tool, text_of(rules, stale=stale)))
            state = read_state(self._kernel)
            self._hear(*ports)
            if state is not None and state.holds(rules):
                return state
        raise FirewallError(
            f"the rules of table inet {TABLE} are changed by somebody as soon as they are in place; "
            "see `nft monitor`"
        )

    def _hear(self, *own: int) -> None:
        """Take what was told of changes, and note whether somebody else made one."""
        if self._watch is None:
            self._suspect = True
            self._rolls.doubt()
            return
        told = self._watch.drain()
        if told.lost or told.ports - {self._kernel.port, *own}:
            self._changed_by_others()

    def _changed_by_others(self) -> None:
        self._suspect = self._changed = True
        self._rolls.doubt()

    def apply(self, batch: Sequence[Change]) -> list[Outcome]:
        """Carry out every change, in order within each set. Idempotent; needs ``open``."""
        if self._standing is None:
            raise FirewallError("the firewall is not open: nothing can be banned")
        outcomes = [_UNKNOWN] * len(batch)
        by_set: defaultdict[tuple[bool, int, int], list[int]] = defaultdict(list)  # to hash a Scope is slow
        for number, change in enumerate(batch):
            network = change.network
            by_set[change.scope is Scope.FULL, network.version, network.prefixlen].append(number)
        kinds = {
            BanSet(Scope.FULL if full else Scope.SIP_UDP, version, length): numbers
            for (full, version, length), numbers in by_set.items()
        }
        for ban, numbers in kinds.items():
            if self._families[ban.version] is not None:
                for number in numbers:
                    error = FirewallUnsupportedError(self._families[ban.version])
                    outcomes[number] = Outcome(batch[number], error=error)
            elif not ban.length:
                _tell(batch, outcomes, numbers, FirewallError("a /0 is everybody: the kernel bans none"))
        possible = {
            ban: numbers
            for ban, numbers in kinds.items()
            if ban.length and self._families[ban.version] is None
        }
        adding = {ban for ban, numbers in possible.items() if any(isinstance(batch[n], Add) for n in numbers)}
        lacking = self._make_sets(self._standing, adding)
        there = self._standing.state.bans
        for ban, numbers in possible.items():
            if ban not in there:
                _tell(batch, outcomes, numbers, lacking)
        changes = Changes(self._kernel, batch, outcomes, modern=self._modern)
        with self._unheard(len(batch), lambda: changes.commits):
            changes.apply({ban: numbers for ban, numbers in possible.items() if ban in there})
        return outcomes

    @contextmanager
    def _unheard(self, size: int, commits: Callable[[], int]) -> Iterator[None]:
        """Pause listening where much is changed: changes of others show in the number of generations."""
        if self._watch is None or size <= elements.CHUNK:
            yield
            return
        before = self._generation()
        self._watch.pause()
        try:
            yield
        finally:
            self._watch.resume()
            if self._generation() != before + commits():
                self._changed_by_others()

    def _make_sets(self, standing: _Standing, wanted: set[BanSet]) -> FirewallError | None:
        """Make sets and rules for prefix lengths that have none yet; give why that cannot be."""
        if wanted <= standing.state.bans:
            return None
        try:
            damage = difference(standing.state, read_state(self._kernel))
            if damage is not None:  # open() must see it, and say so
                self._suspect = True
                return FirewallError(f"{damage}; opening the firewall again heals it")
            bans = standing.state.bans | wanted
            state = self._put(find_nft(), ruleset(standing.plan, bans))
        except FirewallError as error:
            return error
        self._standing = evolve(standing, state=state)
        return None

    def fill(self, roll: Roll, networks: Iterable[Network]) -> None:
        """Have exactly ``networks`` on ``roll``, in one transaction. Idempotent; needs ``open``."""
        self._hear()
        wanted = list(networks)
        while not self._fill(self._rolls.filling(roll, wanted, read_sets(self._kernel))):
            pass  # what was remembered is forgotten now: it goes whole

    def _fill(self, filling: Filling) -> bool:
        if filling.size <= elements.CHUNK:
            return self._rolls.send(self._kernel, filling)
        with self._unheard(filling.size, lambda: 1), Conversation(_LONG, extended=True) as kernel:
            return self._rolls.send(kernel, filling)

    def _generation(self) -> int:
        [answer] = self._kernel.request(messages.get_generation())
        generation = messages.generation_of(answer)
        return generation.number if generation is not None else 0

    def list(self) -> Iterator[Element]:
        """Read every ban from the kernel; empty where no table of ours exists.

        Has a socket of its own: a thread may list while the event loop bans. A set that is changed while it
        is read is read again, up to three times; what may lack something then is given all the same, but
        nothing twice.
        """
        with Conversation(extended=True) as kernel:
            try:
                heads = read_sets(kernel)
            except NetlinkError:
                _require_kernel(kernel)  # says so if that is what is lacking
                raise
            for head in heads:
                ban = BanSet.read(head.name)
                if ban is not None and head.elements != 0:
                    yield from _bans(kernel, ban)

    def find(self, network: Network, scope: Scope = Scope.FULL) -> Element | None:
        """Read one ban from the kernel, None where it has none. Needs ``open``."""
        ban = BanSet(scope, network.version, network.prefixlen)
        try:
            answers = self._kernel.request(elements.query(TABLE, ban.name, network))
        except NetlinkError as error:
            if error.code == errno.ENOENT:
                return None
            raise
        found = (
            one for answer in answers for one in elements.bans_of(answer, ban.version, ban.length, scope)
        )
        return next(found, None)

    def pulse(self) -> Pulse:
        """Look whether somebody else has changed rules or sets. Needs ``open``; changes nothing."""
        if self._standing is None:
            raise FirewallError("the firewall is not open")
        self._hear()
        trouble = None
        if self._suspect:
            trouble = difference(self._standing.state, read_state(self._kernel))
            self._suspect = trouble is not None
        changed, self._changed = self._changed, False
        heads = read_sets(self._kernel)
        return Pulse(trouble or self._rolls.trouble(heads), self._known(heads), changed)

    def watch_fd(self) -> int | None:
        """Give what becomes readable when somebody changes nftables."""
        return self._watch.fileno() if self._watch is not None else None

    def usage(self) -> Usage:
        """Say what rules and sets have met so far. Has a socket of its own, as ``list`` has."""
        with Conversation(extended=True) as kernel:
            met, heads = messages.counters_of(kernel.request(messages.get_counters(TABLE))), read_sets(kernel)
        counters = {counter.name: counter for counter in met}
        sets: dict[str, int | None] = {}
        for head in heads:
            kind = _kind_of(head.name)
            if kind is not None:
                number, so_far = head.elements, sets.get(kind, 0)
                sets[kind] = None if number is None or so_far is None else so_far + number
        limited = ("over_limit", "no_room")
        return Usage(
            tuple(
                RuleUse(words, counters[name].packets, counters[name].bytes)
                for name, words in COUNTERS.items()
                if name in counters and name not in limited
            ),
            sets,
            *(counters[name].packets if name in counters else 0 for name in limited),
        )

    def flooding(self) -> Sequence[Flooder]:
        """Give the sources that were over the limit within the last seconds. Needs ``open``."""
        if self._standing is None or self._standing.plan.limit.mode is LimitMode.OFF:
            return []
        answers = (
            answer
            for version in VERSIONS
            for answer in self._kernel.request(elements.dump(TABLE, f"flood{version}"))
        )
        return [flooder for answer in answers for flooder in elements.flooders_of(answer)]

    def flush(self) -> None:
        """Remove our table with all that is in it. Idempotent; works without ``open``."""
        self._require_capability()
        _require_kernel(self._kernel)
        refusals = self._kernel.transact(messages.delete_table(TABLE))
        if refusals and refusals[0].code != errno.ENOENT:
            raise NetlinkError(refusals[0].code, b"")
        self._standing = None
        self._families = {}
        self._rolls.forget()

    def close(self) -> None:
        """Give back the sockets. Idempotent."""
        self._kernel.close()
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def _damaged(had: State | None, before: State | None, now: State) -> bool:
    """Say whether what stood before was other than it had been put in place, as far as that is known.

    After a restart it is known where the plan is the same.
    """
    if had is not None:
        return before is None or before.shape != had.shape
    return before is not None and before.mark in ("", now.mark) and before.shape != now.shape


def _variants(plan: Plan) -> Iterator[tuple[Plan, bool, bool]]:
    """Give the plan, and it without the log rule, the limiter, and both: what is left out, is told."""
    yield plan, False, False
    logging, limiting = plan.log_group is not None, plan.limit.mode is not LimitMode.OFF
    if logging:
        yield evolve(plan, log_group=None), True, False
    if limiting:
        yield evolve(plan, limit=Limit()), False, True
    if logging and limiting:
        yield evolve(plan, log_group=None, limit=Limit()), True, True


def _bans(kernel: Conversation, ban: BanSet) -> Iterator[Element]:
    answers: list[bytes] = []
    for _ in range(_TRIES):
        answers.clear()
        try:
            answers.extend(kernel.stream(elements.dump(TABLE, ban.name)))
        except NetlinkInterruptedError:
            continue
        except NetlinkError as error:
            if error.code == errno.ENOENT:
                return
            raise
        for answer in answers:
            yield from elements.bans_of(answer, ban.version, ban.length, ban.scope)
        return
    yield from {
        element.network: element
        for answer in answers
        for element in elements.bans_of(answer, ban.version, ban.length, ban.scope)
    }.values()


def _kind_of(name: str) -> str | None:
    if BanSet.read(name) is not None:
        return "bans"
    word = name[:-1]
    if word in set(Roll):
        return word
    return {"rate": "limiter", "flood": "flooding"}.get(word)


def _tell(
    batch: Sequence[Change], outcomes: list[Outcome], numbers: Iterable[int], error: FirewallError | None
) -> None:
    """Tell of changes to a set that cannot be: no Add is carried out, and to remove is done."""
    for number in numbers:
        change = batch[number]
        outcomes[number] = Outcome(change, error=error if isinstance(change, Add) else None)


def _require_kernel(kernel: Conversation) -> None:
    try:
        kernel.request(messages.get_generation())
    except NetlinkError as error:
        raise FirewallUnsupportedError(
            "this kernel has no nftables; mend: `modprobe nf_tables` (CONFIG_NF_TABLES; in a container: on "
            "its host)"
        ) from error
