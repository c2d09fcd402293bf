"""Installs the rules of table ``inet ringfence`` with the program ``nft``, and compares and repairs them.

``nft -f -`` writes them in one transaction of some five milliseconds. This happens at the start, after a
change of the plan, after another program changed our table, and after a long network list was filled into its
alternate set. All of these are rare, so they may start a process. When rules are replaced, the sets keep all
their elements. A table that exists at the start is adopted. A ban in an existing set never waits for ``nft``.
The first ban of a prefix length adds its set and rules without a process (:meth:`Installation.add_sets`).
When rules are replaced, such a set is deleted if it is empty, because each packet pays for its rules.

A long list must not stop the event loop. So another thread runs ``nft`` when the rules shall use the
alternate set (:class:`RuleChange`). ``nft`` does not delete the old set: when a program closes its netlink
socket, Linux 6.18 waits until deleted elements are freed (0.2 s for 250 000), and no ban can be placed
meanwhile. Ringfence's own socket stays open, so it deletes the set.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import TypeVar

from attrs import evolve, frozen

from ringfence.errors import FirewallError, FirewallToolError, FirewallUnsupportedError
from ringfence.firewall.contract import (
    FirewallPlan,
    Fragments,
    Requirement,
    fragments_requirement,
    not_open_error,
)
from ringfence.firewall.nftables import elements, messages
from ringfence.firewall.nftables.ruleset import (
    DROPPING,
    NARROW,
    REASSEMBLING,
    TABLE,
    BanSet,
    Ruleset,
    default_ban_sets,
    empty_set,
    messages_to_add,
    ruleset,
    ruleset_text,
)
from ringfence.firewall.nftables.state import (
    TableState,
    changed_limits,
    difference,
    read_added,
    read_sets,
    read_state,
    require_own_sets,
)
from ringfence.firewall.nftables.watch import ForeignChanges
from ringfence.firewall.requirements import check_requirement, find_program, run_program
from ringfence.netlink.connection import NetlinkConnection, NetlinkError

# -- runs the program ``nft``, which writes the rules, one transaction per run


_PACKAGE = "nftables"
# The end of the error message if another program declared a set with one of our names differently. ``nft``
# cannot change a declaration, so the administrator must remove the table.
_FOREIGN_SET = (
    "; another program declared it differently; fix: `ringfence off`, or `nft delete table inet ringfence`"
)


def find_nft() -> str:
    """Return the path of ``nft`` from PATH, /usr/sbin or /sbin; else raise FirewallUnsupportedError."""
    return find_program("nft", _PACKAGE)


def run_nft(program: str, text: str, *, check: bool = False) -> int:
    """Carry out ``text`` in one transaction; return the process ID of ``nft``, which is its netlink port.

    ``program`` is the path of ``nft``. With ``check`` the kernel examines the transaction, and changes
    nothing.

    Raises FirewallError with the output of ``nft`` if it fails. In that case nothing has changed.
    """
    done = run_program([program, *(["--check"] if check else []), "-f", "-"], text, _PACKAGE)
    if done.status != 0:
        reason = _reason(done.errors or done.output)
        fix = _FOREIGN_SET if "File exists" in reason else ""
        raise FirewallError(f"{program} failed ({done.status}): {reason}{fix}")
    return done.pid


def _reason(output: str) -> str:
    """Return the first error in the output of nft. Later lines mark its position, or follow from it."""
    lines = [line for line in output.splitlines() if line.strip()]
    return " ".join(" ".join(lines[:2]).split()) or "no reason given"


# -- checks whether the kernel and ``nft`` support the rules of nftables, before anything is changed
#
# Version numbers would mislead, because distributions add features to older kernels. So ringfence tries the
# rules: ``nft --check`` makes the kernel examine a whole transaction, and then discards it. The transaction
# makes a table of another name, so the contents of our table do not matter. docs/firewall.md names the
# versions.


LIMITS_FIX = "fix: `modprobe nft_limit nft_fib_inet`"
REASSEMBLY_FIX = "fix: `modprobe nft_tproxy`"
LOG_FIX = "fix: `modprobe nft_log nfnetlink_log nft_fib_inet`"
_TABLE = "ringfence_check"
_BANS = "sets and rules of nftables"
_BANS_FIX = 'fix: Linux 5.7 and nft 0.9.5 or later, or `backend = "ipset"` in [firewall]'
_LOG = "the log rules for the wire"
_LIMITS = "the limits"
_NO_INNER = (
    "over TCP only behind headers of 20 and 32 bytes, since this kernel or nft has no `@ih` (Linux 5.16, nft "
    "1.0.1)"
)


def variants(plan: FirewallPlan) -> Iterator[tuple[FirewallPlan, bool, bool, bool]]:
    """Yield the plans to try until the kernel accepts one: the whole plan, then plans with fewer features.

    Each item has four values: the plan; whether its rules use ``@ih``, the data after the TCP header;
    whether the log rules were left out; and whether what is optional was left out.
    """
    logging, limiting = plan.copies, plan.limits
    yield plan, True, False, False
    if logging or limiting:
        yield plan, False, False, False
    if logging:
        for inner in (True, False) if limiting else (True,):
            yield plan.without_copies(), inner, True, False
    if limiting:
        for inner in (True, False) if logging else (True,):
            yield plan.without_limits(), inner, False, True
    if logging and limiting:
        yield plan.without_limits().without_copies(), True, True, True
    if plan.new_only:  # a kernel without connection tracking
        yield from variants(evolve(plan, new_only=False))


def rule_requirements(tool: str, plan: FirewallPlan) -> list[Requirement]:
    """Return what the rules of ``plan`` need: for bans, log rules, limits, and for fragments.

    Each has a problem if the kernel or ``nft`` (its path is ``tool``) refuses the rules. Takes some 20 ms and
    changes nothing.
    """
    fewest = evolve(plan.without_limits().without_copies(), new_only=False)
    bans = check_requirement(_BANS, partial(_try, tool, fewest))
    if bans.problem is not None:
        return [evolve(bans, problem=f"{bans.problem}; {_BANS_FIX}")]
    requirements = [bans]
    if plan.copies:
        requirements.append(_log_rules(tool, plan.without_limits()))
    if plan.limits:
        quiet = plan.without_copies()
        limits = check_requirement(_LIMITS, partial(_try, tool, quiet))
        if limits.problem is not None:
            limits = check_requirement(_LIMITS, partial(_try, tool, quiet, inner=False))
        requirements.append(_optional(limits, LIMITS_FIX))
    try:
        fragments = _fragments(tool)
    except FirewallToolError:
        fragments = Fragments.PASSED
    return [*requirements, fragments_requirement(fragments, REASSEMBLY_FIX)]


def _fragments(tool: str) -> Fragments:
    """Return the best treatment of packet fragments that the kernel and ``nft`` (at ``tool``) accept.

    Raise FirewallToolError if that is unknown.
    """
    for found, rule in ((Fragments.REASSEMBLED, REASSEMBLING), (Fragments.DROPPED, DROPPING)):
        text = f"table inet {_TABLE} {{\n  chain fragments {{\n    {rule}\n  }}\n}}\n"
        try:
            run_nft(tool, text, check=True)
        except FirewallToolError:
            raise
        except FirewallError:
            continue
        return found
    return Fragments.PASSED


def _log_rules(tool: str, plan: FirewallPlan) -> Requirement:
    if check_requirement(_LOG, partial(_try, tool, plan)).problem is None:
        return Requirement(_LOG)
    without = check_requirement(_LOG, partial(_try, tool, plan, inner=False))
    return _optional(without, LOG_FIX) if without.problem is not None else evolve(without, note=_NO_INNER)


def _optional(requirement: Requirement, fix: str) -> Requirement:
    return (
        requirement
        if requirement.problem is None
        else evolve(requirement, problem=f"{requirement.problem}; {fix}", optional=True)
    )


def _try(tool: str, plan: FirewallPlan, *, inner: bool = True) -> None:
    """Raise FirewallError if the kernel or ``nft`` (at the path ``tool``) refuses the rules of ``plan``.

    ``inner``: the rules use ``@ih``, the data after the TCP header (``ruleset.py``).
    """
    try:
        run_nft(tool, ruleset_text(ruleset(plan, default_ban_sets(), inner=inner), table=_TABLE), check=True)
    except FirewallError as error:
        raise FirewallError(f"refused: {error}") from error


# -- changes the rules in steps: the event loop goes on while another thread runs ``nft``


T = TypeVar("T")
CallSteps = Generator[Callable[[], None], None, T]
"""Yields calls that take long, such as a process. Each must be made before the next step, in any thread.

The steps themselves belong to the event loop. The last one returns the result.
"""


class _Program:
    """A transaction of ``nft``: ``commands`` is its text. Another thread may carry it out."""

    def __init__(self, commands: str) -> None:
        self._commands = commands
        self._lock = threading.Lock()
        self._result: int | FirewallError | None = None

    def run(self) -> None:
        """Carry the transaction out, unless this was done. If another thread does so now, wait for it."""
        with self._lock:
            if self._result is None:
                try:
                    self._result = run_nft(find_nft(), self._commands)
                except FirewallError as error:
                    self._result = error

    def port(self) -> int:
        """Return the netlink port of ``nft``, which has run; raise FirewallError if it failed."""
        if isinstance(self._result, FirewallError):
            raise self._result
        return self._result or 0


class RuleChange:
    """A change of the table that is carried out in ``steps``, by one caller.

    Any other caller can :meth:`finish` it at once, before it changes the table itself.
    """

    def __init__(self, steps: CallSteps[None]) -> None:
        self._steps = steps
        self._error: FirewallError | None = None
        self._call = self._next()

    @property
    def ended(self) -> bool:
        """Whether the change is complete, or has failed."""
        return self._call is None

    def carry_out(self) -> CallSteps[None]:
        """Carry the change out in steps. If the caller closes the generator, complete it at once.

        Raise FirewallError if the change failed.
        """
        try:
            while (call := self._call) is not None:
                yield call
                if self._call is call:  # else another caller has finished the change meanwhile
                    self._call = self._next()
        finally:
            self.finish()
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Complete the change at once; wait for a thread that makes one of its calls."""
        while self._call is not None:
            self._call()
            self._call = self._next()

    def _next(self) -> Callable[[], None] | None:
        try:
            return next(self._steps, None)
        except FirewallError as error:
            self._error = error
            return None


def _complete(steps: CallSteps[T]) -> T:
    """Make the calls of ``steps`` at once, and return the result."""
    while True:
        try:
            call = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        call()


_TRIES = 3


@frozen
class InstalledTable:
    """The table as it was installed last.

    ``plan`` is the plan of the caller without the features that the kernel refused.
    ``state`` is the table as it was after the installation. ``wire`` is why the kernel refused the log rules,
    and ``limits`` why it refused what is optional; None if it did not. ``inner``: the rules use ``@ih``, the
    data after the TCP header (``ruleset.py``). ``fragments``: what happens to fragments of
    strangers.
    """

    plan: FirewallPlan
    state: TableState
    wire: str | None
    limits: str | None
    inner: bool
    fragments: Fragments


@frozen
class InstallResult:
    """The result of :meth:`Installation.install`.

    ``new``: the table did not exist before. ``repaired``: another program had changed it.
    """

    table: InstalledTable
    new: bool
    repaired: bool


class Installation:
    """Installs and checks our table. ``foreign`` reports changes that other programs made to it."""

    def __init__(self, kernel: NetlinkConnection, foreign: ForeignChanges) -> None:
        self.table: InstalledTable | None = None
        """The table as it was written last, or adopted; None before :meth:`install` and :meth:`adopt`."""
        self.list_names: dict[str, str] = {}
        """The present name of the set of a network list (``deny4_2``), by its base name (``deny4``).

        A list that is missing here has a set with the base name.
        """
        self._kernel = kernel
        self._foreign = foreign
        self._fragments: Fragments | None = None  # what the kernel accepted; None: not asked since then
        self._change: RuleChange | None = None  # the latest change in steps
        self._unfinished: TableState | None = None  # the table before the tries since the last complete one

    def install(self, plan: FirewallPlan) -> InstallResult:
        """Write the table for ``plan``, and repair changes by other programs.

        Nothing is written if this object has installed the same plan and the table has not changed since. If
        the kernel refused a part of the plan, that part is tried again each time.
        Idempotent. Raise FirewallError if the table cannot be written, or if it has a set of another type
        with one of our names.
        """
        self.finish()
        self._foreign.read()
        self._foreign.confirm_rules()  # before the table is read: a later change makes it suspect again
        try:
            before, previous = read_state(self._kernel, self.list_names), self.table
            if before is not None:
                require_own_sets(before)
                if previous is None:
                    self.list_names = before.names
            if previous is None or previous.plan != plan or previous.state != before:
                table = self._write_plan(plan, before)
            else:
                table = previous
        except FirewallError:
            self._foreign.mark_suspect()
            raise
        self.table = table
        repaired = _was_damaged(previous.state if previous is not None else None, before, table.state)
        return InstallResult(table, before is None, repaired)

    def adopt(self, plan: FirewallPlan) -> None:
        """Use the table that the kernel has, without writing it. Only :meth:`add_sets` may follow.

        New sets get their size from ``plan``. Raise FirewallError if there is no table, or if it has a set of
        another type with one of our names.
        """
        state = read_state(self._kernel, self.list_names)
        if state is None:
            raise FirewallError(f"table inet {TABLE} is gone")
        require_own_sets(state)
        self.list_names = state.names
        # A rule for a new set must not go to a chain that the table lacks: at boot nothing is copied.
        copies = any(chain.name == NARROW for chain in state.chains)
        self.table = InstalledTable(
            plan if copies else plan.without_copies(),
            state,
            wire=None,
            limits=None,
            inner=True,
            fragments=Fragments.PASSED,
        )

    def require(self) -> InstalledTable:
        """Return the installed table; raise FirewallError before :meth:`install` or :meth:`adopt`."""
        if self.table is None:
            raise not_open_error()
        return self.table

    def forget(self) -> None:
        """Record that the table was removed."""
        self.table = self._fragments = None

    def finish(self) -> None:
        """Complete a change in steps at once, if there is one (:class:`RuleChange`)."""
        if self._change is not None:
            self._change.finish()

    def damage(self) -> str | None:
        """Return a message about what another program has changed in our table, None if nothing.

        The table is read and compared only if another program may have changed it since it was last found in
        order. During a change in steps it is not compared: the next call does so.
        """
        if not self._foreign.suspect or (self._change is not None and not self._change.ended):
            return None
        damage = difference(self.require().state, read_state(self._kernel, self.list_names))
        if damage is None:
            self._foreign.confirm_rules()
        return damage

    def add_sets(self, wanted: set[BanSet], fill: Callable[[], object]) -> FirewallError | None:
        """Make those of the sets ``wanted`` that do not exist, with their rules, in one transaction.

        No process is started. ``fill`` puts bans into the sets as soon as they stand. Return None if all of
        the sets exist now, else the error.
        """
        self.finish()
        table = self.require()
        new = wanted - table.state.bans
        try:
            self._foreign.read()
            self._refuse_damage(self.damage())
            sent = messages_to_add(table.plan, new, self.list_names, table.state.following_rule)
            refusals = self._kernel.transact(*sent)
            if refusals:
                raise NetlinkError(refusals[0].code, b"")
            self._foreign.commits += 1
            fill()
            self.table = evolve(table, state=read_added(self._kernel, table.state, new))
        except FirewallError as error:
            self._foreign.mark_suspect()  # perhaps the sets exist nevertheless
            return error
        return None

    def switch_list(self, base: str, name: str) -> CallSteps[None]:
        """Rewrite the rules so that they use the set ``name`` for the list with the base name ``base``.

        The set that the list used before is deleted. Raise FirewallError if the rules cannot be written.
        """
        return self._in_steps(self._switch_list(base, name))

    def make_empty(self, name: str, version: int) -> CallSteps[None]:
        """Make an empty set ``name`` for a list of IP ``version``. If the set exists, remove its elements."""
        return self._in_steps(self._make_empty(name, version))

    def _in_steps(self, steps: CallSteps[None]) -> CallSteps[None]:
        """Carry out ``steps``. Other changes of the table first complete them."""
        self.finish()
        self._change = RuleChange(steps)
        yield from self._change.carry_out()

    def _switch_list(self, base: str, name: str) -> CallSteps[None]:
        """Do what :meth:`switch_list` describes.

        Raise FirewallError if another program has changed the table: only :meth:`install` repairs it.
        """
        table, before = self.require(), read_state(self._kernel, self.list_names)
        self._refuse_damage(difference(table.state, before))
        names, old = dict(self.list_names), self.list_names.get(base, base)
        self.list_names[base] = name
        try:
            rules = ruleset(
                table.plan,
                table.state.bans,
                inner=table.inner,
                fragments=table.fragments,
                names=self.list_names,
            )
            state = yield from self._write(rules, before)
        except FirewallError:
            self.list_names = names
            raise
        self.table = evolve(table, state=state)
        if not self._kernel.transact(messages.delete_set(TABLE, old)):
            self._foreign.commits += 1

    def _make_empty(self, name: str, version: int) -> CallSteps[None]:
        self._foreign.read((yield from self._run(empty_set(name, version))))

    def _run(self, commands: str) -> CallSteps[int]:
        """Carry out one transaction, text for nft; return its netlink port. Raise FirewallError."""
        program = _Program(commands)
        with self._foreign.deferred():
            yield program.run
        port = program.port()
        self._foreign.commits += 1
        return port

    def _ban_sets(self, before: TableState | None) -> frozenset[BanSet]:
        """Return the default sets of bans, and those of ``before`` that are not empty.

        A set stays if the kernel does not count its elements (before 6.16).
        """
        bans = default_ban_sets()
        if before is not None:
            filled = {head.name for head in read_sets(self._kernel) if head.elements != 0}
            bans |= {one for one in before.bans if one.name in filled}
        return bans

    def _write_plan(self, plan: FirewallPlan, before: TableState | None) -> InstalledTable:
        """Write the rules of ``plan``, without optional features that this kernel refuses.

        ``before`` is the present state of the table, None if it does not exist. Raise FirewallError if the
        kernel refuses the rules also without these features.
        """
        if self._fragments is not Fragments.REASSEMBLED:
            self._fragments = _fragments(find_nft())
        fragments = self._fragments
        refused: FirewallError | None = None
        self._unfinished = self._unfinished or before
        for tried, inner, wire, limits in variants(plan):
            try:
                bans = self._ban_sets(before)
                rules = ruleset(tried, bans, inner=inner, fragments=fragments, names=self.list_names)
                unused = before.replaceable(bans) if before is not None else set[str]()
                if self.table is not None and before is not None:
                    unused -= before.unused  # a list may be filling it
                state = _complete(self._write(rules, before, unused))
            except (FirewallUnsupportedError, FirewallToolError):
                raise
            except FirewallError as error:
                refused, before = refused or error, read_state(self._kernel, self.list_names)
            else:
                self._clear_limits(before, state)
                return InstalledTable(
                    tried,
                    state,
                    f"{refused}; {LOG_FIX}" if wire and refused else None,
                    f"{refused}; {LIMITS_FIX}" if limits and refused else None,
                    inner,
                    fragments,
                )
        self._fragments = None  # perhaps the kernel accepts less than before
        raise refused or FirewallError("no rules could be put in place")

    def _clear_limits(self, before: TableState | None, now: TableState) -> None:
        """Empty the sets whose elements may have other limits than the rules of ``now``, which are in place.

        ``before`` is the table before these rules. If an earlier try failed, the elements may also have the
        limits from before that try. Raise FirewallError if the kernel refuses; then the next try repeats it.
        """
        states = [one for one in (self._unfinished, before) if one is not None]
        names = {name for one in states for name in changed_limits(one, now)}
        if names:
            with self._foreign.unmonitored():  # a set may have a million elements
                refusals = self._kernel.transact(*(elements.clear_elements(TABLE, name) for name in names))
                if refusals:
                    raise NetlinkError(refusals[0].code, b"")
                self._foreign.commits += 1
        self._unfinished = None

    def _refuse_damage(self, damage: str | None) -> None:
        """Raise FirewallError if there is damage; only :meth:`install` repairs and reports it."""
        if damage is not None:
            self._foreign.mark_suspect()
            raise FirewallError(f"{damage}; opening the firewall again repairs it")

    def _write(
        self,
        rules: Ruleset,
        before: TableState | None,
        unused: Iterable[str] = (),
    ) -> CallSteps[TableState]:
        """Write ``rules`` and return the new state of the table; ``before`` is its present state.

        The sets ``unused`` are deleted, unless ``rules`` has them. If another program changes the table
        meanwhile, try again; raise FirewallError after three attempts.
        """
        for _ in range(_TRIES):
            ports: list[int] = []
            if before is not None and before.table.dormant:
                # The kernel refuses chain changes in the transaction that wakes a dormant table. So another
                # transaction wakes it first.
                ports.append((yield from self._run(f"add table inet {TABLE}\n")))
            stale = before.stale_chains(rules) if before is not None else ()
            text = ruleset_text(rules, stale=stale, unused=unused)
            ports.append((yield from self._run(text)))
            state = read_state(self._kernel, self.list_names)
            self._foreign.read(*ports)
            if state is not None and state.matches(rules):
                return state
            before, unused = state, ()
        raise FirewallError(
            f"another program changes the rules of table inet {TABLE} as soon as they stand; "
            "see `nft monitor`"
        )


def _was_damaged(installed: TableState | None, before: TableState | None, now: TableState) -> bool:
    """Whether another program had changed the table that ringfence installed before.

    ``installed`` is the state after our last installation, None after a restart. ``before`` is the state that
    was found, None if there was no table. ``now`` is the state after the new installation.

    After a restart, the last installation is unknown. Then ``before`` is compared with ``now``, if both have
    the same mark: they should be the same ruleset. They are also compared if ``before`` has no mark: its
    first rule is gone. With another mark, the plan or the release was another one, and the answer is False.
    The installation may have deleted empty sets of bans, so these are left out.
    """
    if installed is not None:
        return before is None or before.shape != installed.shape
    return (
        before is not None
        and before.mark in ("", now.mark)
        and before.without(before.bans - now.bans).shape != now.shape
    )
