"""The rules of table ``inet ringfence``: written by ``nft``, compared, and written again.

``nft -f -`` writes them in one transaction of some five milliseconds. This happens at the start, after a
change of the plan, after another program changed our table, when the first network of a prefix length is
banned, and when a long network list was filled into its alternate set. (Only the text form defines which
rules belong together, and it is rarely needed.) Rules are replaced while the sets keep their elements, and an
existing table is adopted.
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
    """The last installation, and the resulting state of the kernel.

    ``asked`` is the requested plan, and ``plan`` the same without the features that the kernel refused.
    ``wire`` and ``limiter`` are the reasons for these refusals. ``inner``: the log rules use ``@ih``.
    """

    asked: FirewallPlan
    plan: FirewallPlan
    state: TableState
    wire: str | None
    limiter: str | None
    inner: bool


@frozen
class InstallResult:
    """The installation; whether the table is new, and whether it was damaged before."""

    table: InstalledTable
    new: bool
    repaired: bool


class Installation:
    """Our table. ``foreign`` reports changes of it by other programs."""

    def __init__(self, kernel: NetlinkConnection, foreign: ForeignChanges) -> None:
        self.table: InstalledTable | None = None
        """The table as it was written last; None before :meth:`install`."""
        self.list_names: dict[str, str] = {}
        """The present names of the sets of network lists by base name, if they differ."""
        self._kernel = kernel
        self._foreign = foreign

    def install(self, plan: FirewallPlan) -> InstallResult:
        """Put the table in place for ``plan``. Idempotent; repairs. Raise FirewallError."""
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
        """Return the installed table; raise FirewallError if there is none."""
        if self.table is None:
            raise not_open_error()
        return self.table

    def forget(self) -> None:
        """Record that the table was removed."""
        self.table = None

    def damage(self) -> str | None:
        """Return what another program has changed, None if nothing; compares only suspect rules."""
        if not self._foreign.suspect:
            return None
        damage = difference(self.require().state, read_state(self._kernel))
        if damage is None:
            self._foreign.confirm_rules()
        return damage

    def add_sets(self, wanted: set[BanSet]) -> FirewallError | None:
        """Make sets and rules for prefix lengths that have none yet; return the error, if any."""
        bans = self.require().state.bans
        if wanted <= bans:
            return None
        try:
            self._rewrite(bans | wanted)
        except FirewallError as error:
            return error
        return None

    def switch_list(self, base: str, name: str) -> None:
        """Have the rules name the set ``name`` for the list ``base``."""
        before = dict(self.list_names)
        self.list_names[base] = name
        try:
            self._rewrite(self.require().state.bans)
        except FirewallError:
            self.list_names = before
            raise

    def make_empty(self, name: str, version: int) -> None:
        """Make an empty set for a list of IP ``version``."""
        self._foreign.read(run_nft(find_nft(), empty_set(name, version)))

    def _write_plan(self, plan: FirewallPlan, before: TableState | None) -> InstalledTable:
        """Write the rules of ``plan``, without optional features that this kernel refuses."""
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
        """Write the rules again with the given sets of bans."""
        table = self.require()
        damage = difference(table.state, read_state(self._kernel))
        if damage is not None:  # install() must see and report it
            self._foreign.mark_suspect()
            raise FirewallError(f"{damage}; opening the firewall again repairs it")
        rules = ruleset(table.plan, bans, inner=table.inner, names=self.list_names)
        self.table = evolve(table, state=self._write(rules))

    def _write(self, rules: Ruleset) -> TableState:
        """Write ``rules`` and return the resulting state; retry if another program changed it in between."""
        tool = find_nft()
        for _ in range(_TRIES):
            before, ports = read_state(self._kernel), []
            if before is not None and before.table.dormant:
                # The kernel refuses chain changes in a transaction that wakes a dormant table.
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
    """Whether another program had changed our previous installation.

    After a restart this can be determined only if the plan is the same.
    """
    if installed is not None:
        return before is None or before.shape != installed.shape
    return before is not None and before.mark in ("", now.mark) and before.shape != now.shape
