"""Installs the rules of table ``inet ringfence`` with the program ``nft``, and compares and repairs them.

``nft -f -`` writes them in one transaction of some five milliseconds. This happens at the start, after a
change of the plan, after another program changed our table, at the first ban of a prefix length that has no
set yet, and after a long network list was filled into its alternate set. All of these are rare, so they may
start a process. When rules are replaced, the sets keep all their elements. A table that exists at the start
is adopted.
"""

from attrs import evolve, frozen

from ringfence.errors import FirewallError, FirewallUnsupportedError
from ringfence.firewall.contract import FirewallPlan, not_open_error
from ringfence.firewall.nftables.foreign import ForeignChanges
from ringfence.firewall.nftables.requirements import LIMITER_FIX, LOG_FIX, variants
from ringfence.firewall.nftables.ruleset import (
    TABLE,
    BanSet,
    Ruleset,
    default_ban_sets,
    empty_set,
    ruleset,
    ruleset_text,
)
from ringfence.firewall.nftables.state import TableState, difference, read_state, require_own_sets
from ringfence.firewall.nftables.tool import find_nft, run_nft
from ringfence.netlink.connection import NetlinkConnection

_TRIES = 3


@frozen
class InstalledTable:
    """The last installation.

    ``asked`` is the plan of the caller. ``plan`` is the same without the features that the kernel refused.
    ``state`` is the table as it was after the installation. ``wire`` is why the kernel refused the log rules,
    and ``limiter`` why it refused the limiter; None if it did not. ``inner``: the log rules use ``@ih``, the
    data after the TCP header (``ruleset.py``).
    """

    asked: FirewallPlan
    plan: FirewallPlan
    state: TableState
    wire: str | None
    limiter: str | None
    inner: bool


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
        """The table as it was written last; None before :meth:`install`."""
        self.list_names: dict[str, str] = {}
        """The present name of the set of a network list (``deny4_2``), by its base name (``deny4``).

        A list that is missing here has a set with the base name.
        """
        self._kernel = kernel
        self._foreign = foreign

    def install(self, plan: FirewallPlan) -> InstallResult:
        """Write the table for ``plan``, and repair changes by other programs.

        Nothing is written if this object has installed the same plan and the table has not changed since.
        Idempotent. Raise FirewallError if the table cannot be written, or if it has a set of another type
        with one of our names.
        """
        before, previous = read_state(self._kernel), self.table
        if before is not None:
            require_own_sets(before)
            if previous is None:
                self.list_names = before.names
        if previous is None or previous.asked != plan or previous.state != before:
            table = self._write_plan(plan, before)
        else:
            table = previous
        self.table = table
        self._foreign.confirm_rules()
        repaired = _was_damaged(previous.state if previous is not None else None, before, table.state)
        return InstallResult(table, before is None, repaired)

    def require(self) -> InstalledTable:
        """Return the installed table; raise FirewallError before :meth:`install`."""
        if self.table is None:
            raise not_open_error()
        return self.table

    def forget(self) -> None:
        """Record that the table was removed."""
        self.table = None

    def damage(self) -> str | None:
        """Return a message about what another program has changed in our table, None if nothing.

        The table is read and compared only if another program may have changed it since it was last found in
        order.
        """
        if not self._foreign.suspect:
            return None
        damage = difference(self.require().state, read_state(self._kernel))
        if damage is None:
            self._foreign.confirm_rules()
        return damage

    def add_sets(self, wanted: set[BanSet]) -> FirewallError | None:
        """Make those of the sets ``wanted`` that do not exist, with their rules.

        Return None if all of them exist now, else the error.
        """
        bans = self.require().state.bans
        if wanted <= bans:
            return None
        try:
            self._rewrite(bans | wanted)
        except FirewallError as error:
            return error
        return None

    def switch_list(self, base: str, name: str) -> None:
        """Rewrite the rules so that they use the set ``name`` for the list with the base name ``base``.

        The set that the list used before is deleted. Raise FirewallError if the rules cannot be written.
        """
        before = dict(self.list_names)
        self.list_names[base] = name
        try:
            self._rewrite(self.require().state.bans)
        except FirewallError:
            self.list_names = before
            raise

    def make_empty(self, name: str, version: int) -> None:
        """Make an empty set ``name`` for a list of IP ``version``. If the set exists, remove its elements."""
        self._foreign.read(run_nft(find_nft(), empty_set(name, version)))

    def _write_plan(self, plan: FirewallPlan, before: TableState | None) -> InstalledTable:
        """Write the rules of ``plan``, without optional features that this kernel refuses.

        ``before`` is the present state of the table, None if it does not exist.
        """
        bans = default_ban_sets() if before is None else default_ban_sets() | before.bans
        refused: FirewallError | None = None
        for tried, inner, wire, limiter in variants(plan):
            try:
                state = self._write(ruleset(tried, bans, inner=inner, names=self.list_names))
            except FirewallUnsupportedError:
                raise
            except FirewallError as error:
                refused = refused or error
            else:
                return InstalledTable(
                    plan,
                    tried,
                    state,
                    f"{refused}; {LOG_FIX}" if wire and refused else None,
                    f"{refused}; {LIMITER_FIX}" if limiter and refused else None,
                    inner,
                )
        raise refused or FirewallError("no rules could be put in place")

    def _rewrite(self, bans: frozenset[BanSet]) -> None:
        """Write the rules of the installed plan again, for the sets ``bans``.

        Raise FirewallError if another program has changed the table: only :meth:`install` repairs it.
        """
        table = self.require()
        damage = difference(table.state, read_state(self._kernel))
        if damage is not None:  # not repaired here, because install() must find and report it
            self._foreign.mark_suspect()
            raise FirewallError(f"{damage}; opening the firewall again repairs it")
        rules = ruleset(table.plan, bans, inner=table.inner, names=self.list_names)
        self.table = evolve(table, state=self._write(rules))

    def _write(self, rules: Ruleset) -> TableState:
        """Write ``rules`` and return the new state of the table.

        If another program changes the table meanwhile, try again; raise FirewallError after three attempts.
        """
        tool = find_nft()
        for _ in range(_TRIES):
            before, ports = read_state(self._kernel), []
            if before is not None and before.table.dormant:
                # The kernel refuses chain changes in the transaction that wakes a dormant table. So another
                # transaction wakes it first.
                ports.append(run_nft(tool, f"add table inet {TABLE}\n"))
            stale = before.stale_chains(rules) if before is not None else ()
            unused = {*before.names.values(), *before.unused} if before is not None else ()
            ports.append(run_nft(tool, ruleset_text(rules, stale=stale, unused=unused)))
            state = read_state(self._kernel)
            self._foreign.read(*ports)
            if state is not None and state.matches(rules):
                return state
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
    """
    if installed is not None:
        return before is None or before.shape != installed.shape
    return before is not None and before.mark in ("", now.mark) and before.shape != now.shape
