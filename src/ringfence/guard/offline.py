"""Requests without the daemon: a command answers them itself, from the daemon's database and the kernel.

The restore at boot, which also needs no daemon, is here too.

``ANSWERS`` has a function for each such request. It gets the settings and the arguments of the request, and
its answer has the same form as the daemon's. A request that reads returns what is recorded; it needs the
rights of the database's files. Lists may be changed too, and the daemon reads them when it starts. Only root
can unban: that changes the kernel. While a daemon runs, an unban raises an error, because the daemon has
locked the database and the kernel's sets, and would restore the bans.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from attrs import asdict, evolve

from ringfence import street
from ringfence.bans.enforcer import Enforcer
from ringfence.bans.unban import unban, unban_all
from ringfence.clock import Clock
from ringfence.config.schema import Settings
from ringfence.control import MOST_PAST
from ringfence.control_server import Encoded
from ringfence.detect.detector import Detector
from ringfence.detect.friends import MOST
from ringfence.errors import (
    DaemonUnreachableError,
    FirewallBusyError,
    FirewallIncompleteError,
    NotRecordedError,
    StoreBusyError,
    StoreError,
)
from ringfence.explain.account import account_document, account_offline
from ringfence.explain.as_json import Document, document
from ringfence.explain.facts import facts_offline, protected_networks
from ringfence.firewall import KERNEL_BACKENDS, make_backend
from ringfence.firewall.cleanup import flush_everything, holds_anything
from ringfence.firewall.contract import Backend, Element
from ringfence.firewall.requirements import require_capabilities
from ringfence.friends.exchange import as_json
from ringfence.guard.ban_list import bans_report
from ringfence.guard.facts import past_bans, since_from
from ringfence.guard.firewall_side import build_firewall_side, choose
from ringfence.guard.process import claim_sets, collector_paused, configure_logging, make_folder
from ringfence.ledger import Ledger, Record, key_of, network_of
from ringfence.lists.handlers import ListRequests
from ringfence.lists.manager import Lists
from ringfence.plurals import counted
from ringfence.store.database import Store
from ringfence.store.file import is_there
from ringfence.store.switch import hold
from ringfence.store.tables import KEEP_ALARMS
from ringfence.threads import run
from ringfence.values.network import Network, overlap, parse_network

# -- the restore at boot, before the network is up: bans that have not ended are added to the kernel again
#
# The daemon starts later and takes these bans over. So a banned sender gets no answer in between, however
# long the daemon takes to start.


def restore_at_boot(settings: Settings) -> str:
    """Restore rules, lists and bans in the kernel. Return a summary as text for people.

    Do nothing if ringfence is switched off, or if a feature keeps it off (``keeps_off``). No test packet is
    sent, because the loopback interface may not be up yet. Raise RingfenceError if the restore fails.
    """
    with ExitStack() as stack:
        runtime = settings.control.socket.parent
        store = stack.enter_context(Store.open_or_memory(settings.store.path, runtime=runtime))
        if store.records.switched_off:
            return "ringfence is switched off: nothing was put in place"
        for keeps_off in street.functions("guard", "keeps_off"):
            if why := keeps_off(store):
                return f"{why}: nothing was put in place"
        settings = settings.without_wire()  # nothing reads it until the daemon starts
        chosen = choose(settings)
        stack.callback(chosen.backend.close)
        if chosen.backend.enforces:
            stack.enter_context(claim_sets(runtime))
        side = build_firewall_side(settings, store, Detector(()), chosen, Clock())
        stack.enter_context(collector_paused())
        side.start(verified=False)
        enforcer = side.kernel.enforcer
        bans = counted(len(enforcer.ledger), "ban is", "bans are")
        done = f"{bans} in place ({chosen.backend.name})"
        problems = (store.damage(), store.memory_reason, enforcer.unread, store.best_effort.error)
        return "; ".join([done, *dict.fromkeys(filter(None, problems))])


# -- requests that read what is recorded


Arguments = Mapping[str, Any]


@contextmanager
def _recorded(settings: Settings) -> Iterator[Store]:
    """Yield the open database. Raise StoreError if it is unreadable, DaemonUnreachableError if missing."""
    path = settings.store.path
    if not is_there(path):
        raise DaemonUnreachableError(f"no daemon answers, and there is no database {path}")
    with Store.open(path, owner=False) as store:
        yield store


def _alarms(settings: Settings, arguments: Arguments) -> list[dict[str, object]]:
    if not is_there(settings.store.path):
        return []
    since = time.time() - arguments.get("seconds", KEEP_ALARMS)
    with _recorded(settings) as store:
        past = arguments.get("past") is True
        return [
            one.as_json() for one in (store.alarms.past(since, MOST_PAST) if past else store.alarms.active())
        ]


def _bans(settings: Settings, arguments: Arguments) -> tuple[bytes, str]:
    """Return the bans in the kernel as a JSON list (bytes), and a note on their origin for the user."""
    backend = make_backend(settings.firewall.backend)
    if not backend.enforces:
        return b"[]", f", and without it the {backend.name} firewall has no bans"
    now, ledger, incomplete = time.time(), Ledger(), ""
    try:
        with suppress(DaemonUnreachableError), _recorded(settings) as store:
            for ban in filter(None, store.bans.running(now)):
                ledger.put(key_of(ban.network, ban.scope), Record.of(ban))
    except StoreError as error:
        incomplete = f". Records are missing: {error}"
    found: list[Element] = []
    keys: set[int] = set()
    try:
        # The backend iterates over the argument at the end: over recorded bans that it has not yielded.
        for element in backend.list(network_of(key) for key in ledger.keys() if key not in keys):  # noqa: SIM118
            keys.add(key_of(element.network, element.scope))
            found.append(element)
    except FirewallIncompleteError as error:
        incomplete += f". The list may be incomplete: {error}"
    finally:
        backend.close()
    wanted = _networks(arguments)
    encoded = b"".join(bans_report((one for one in found if _is_wanted(one.network, wanted)), ledger, now))
    return encoded, f": the list is read from the kernel, which enforces bans without it{incomplete}"


def _networks(arguments: Arguments) -> list[Network] | None:
    return [parse_network(text) for text in arguments["networks"]] if "networks" in arguments else None


def _is_wanted(network: Network, wanted: Sequence[Network] | None) -> bool:
    return wanted is None or any(overlap(network, one) for one in wanted)


def _past_bans(settings: Settings, arguments: Arguments) -> list[dict[str, Any]]:
    if not is_there(settings.store.path):
        return []
    now = time.time()
    with _recorded(settings) as store:
        return [*past_bans(store.bans, since_from(arguments, now), now, _networks(arguments))]


def _read(read: Callable[[Store, Arguments, float], Any], settings: Settings, arguments: Arguments) -> Any:  # noqa: ANN401 - the daemon's JSON
    """Return what ``read`` returns for the open database, the request's arguments and the present time."""
    with _recorded(settings) as store:
        return read(store, arguments, time.time())


def _friends(settings: Settings, _: Arguments) -> list[dict[str, Any]]:
    if not is_there(settings.store.path):
        return []
    with _recorded(settings) as store:
        return [as_json(friend) for friend in store.friends.current(time.time(), MOST)]


def _why(settings: Settings, arguments: Arguments) -> Document:
    return document(facts_offline(settings, parse_network(arguments["network"]), time.time()))


def _why_account(settings: Settings, arguments: Arguments) -> Document:
    return account_document(account_offline(settings, arguments["account"], time.time()))


# -- requests that change something


def _on_lists(do: str, settings: Settings, arguments: Arguments) -> object:
    """Carry out the request ``do`` about the lists, on the daemon's database; return its JSON answer."""
    make_folder(settings.store.path.parent)  # the daemon may never have run
    with Store.open(settings.store.path, owner=False) as store:
        configured = evolve(settings.lists(), kept=None)
        lists = Lists(store.entries, configured, lambda _networks: None, now=time.time)
        unread: list[str] = []
        if do != "lists":
            lists.protect(protected_networks(settings, unread))
        lists.load()
        lists.read_databases()
        lists.load()
        answer: Any = ListRequests(lists, store.entries, Clock()).handlers()[do](arguments)
        if isinstance(answer, Encoded):
            return json.loads(b"".join(answer.parts))
        result = run(answer)
        result["notes"] += unread
        return result


def _switch(settings: Settings, *, switched_off: bool) -> str:
    """Record in the database whether ringfence is switched off, or else in the folder of the control socket.

    Return why the database could not record it; "" if it did. Raise StoreError if neither could.
    """
    folder = settings.control.socket.parent
    try:
        with Store.open(settings.store.path, owner=False, runtime=folder) as store:
            store.state.set_switched_off(switched_off)
            store.switch.set(switched_off)
            failed = store.best_effort.lacks
    except StoreError as error:
        make_folder(folder)
        if not hold(folder, switched_off):
            raise
        return f"{error}; a file in {folder} has it until a reboot"
    return failed


def _off(settings: Settings, _: Arguments) -> tuple[str, bool]:
    """Record that ringfence is switched off, and remove all its rules and sets from the kernel.

    Return why the database could not record it ("" if it did). Return also whether it is recorded nowhere, so
    that a daemon would put the rules in place again. It is recorded before the rules are removed. Otherwise a
    daemon that runs but does not answer would restore them.
    """
    failed, undone = "", False
    try:
        failed = _switch(settings, switched_off=True)
    except StoreError as error:
        failed, undone = str(error), True
    flush_everything()
    return failed, undone


def _on(settings: Settings, _: Arguments) -> str:
    return _switch(settings, switched_off=False)


def _unban(settings: Settings, arguments: Arguments) -> Any:  # noqa: ANN401 - the daemon's JSON
    """Unban the networks of the request, or all; return the same answer as the daemon (JSON values).

    Raise RingfenceError if this process may not unban, or cannot record it.
    """
    with _enforcer(settings) as enforcer:
        if arguments.get("all"):
            return run(unban_all(enforcer))
        done = run(unban(enforcer, _networks(arguments) or []))
        return {name: list(one) if isinstance(one, tuple) else one for name, one in asdict(done).items()}


ANSWERS: Mapping[str, Callable[[Settings, Arguments], Any]] = {
    "alarms": _alarms,
    "bans": _bans,
    "friends": _friends,
    "off": _off,
    "on": _on,
    "past_bans": _past_bans,
    "unban": _unban,
    "why": _why,
    "why_account": _why_account,
    **{
        do: partial(_read, read)
        for module in street.modules("guard")
        for do, read in getattr(module, "RECORDED", {}).items()
    },
    **{
        do: answer
        for module in street.modules("guard")
        for do, answer in getattr(module, "OFFLINE", {}).items()
    },
    **{
        do: partial(_on_lists, do) for do in ("lists", "allow_add", "allow_remove", "deny_add", "deny_remove")
    },
}
"""The requests that a command can answer itself, by their names."""

CHANGES = frozenset({"on", "unban", "allow_add", "allow_remove", "deny_add", "deny_remove"})
"""The names of the requests that change something, except ``off``.

While a daemon may carry out such a request, or may not notice the change, no command does it itself.
"""

_PROC = Path("/proc")


@contextmanager
def _enforcer(settings: Settings) -> Iterator[Enforcer]:
    """Yield an enforcer (the part that places and removes bans) that knows every active ban.

    Raise RingfenceError at the start if the process is not root, or if a daemon runs. Raise StoreError at the
    end if bans were removed from the kernel, but the database could not record it.
    """
    configure_logging(logging.CRITICAL)  # the command prints the result
    _require_root()
    make_folder(settings.store.path.parent)  # missing if systemd has never started the unit
    with _sole(settings) as store, closing(_backend(settings)) as backend:
        enforcer = Enforcer(backend, store.records, Detector(()), Clock())
        _load(enforcer)
        yield enforcer
        failed = store.best_effort.lacks
        if enforcer.book.counts.unbanned and failed:
            raise NotRecordedError(
                f"removed from the kernel, but the next start bans again: this is not recorded: {failed}"
            )


@contextmanager
def _sole(settings: Settings) -> Iterator[Store]:
    """Yield the open database and hold the daemon's locks. Raise DaemonUnreachableError if a daemon runs."""
    socket = settings.control.socket
    with ExitStack() as stack:
        try:
            store = stack.enter_context(Store.open_or_memory(settings.store.path, runtime=socket.parent))
            stack.enter_context(claim_sets(socket.parent))
        except (FirewallBusyError, StoreBusyError):
            raise DaemonUnreachableError(
                f"a daemon runs, but does not answer at {socket}: it starts, stops or hangs. Its bans stay, "
                "and nothing was done; try again, or: systemctl restart ringfence"
            ) from None
        yield store


def _require_root() -> None:
    if os.geteuid() != 0:
        raise DaemonUnreachableError(
            "no daemon answers, and without it only root can unban; fix: run this as root (sudo), "
            "or start the daemon: systemctl start ringfence"
        )
    require_capabilities(_PROC, "CAP_NET_ADMIN")


def _backend(settings: Settings) -> Backend:
    """Return the firewall backend whose sets or rules are in the kernel now.

    If several backends have some, prefer the configured one. If none has any (after a reboot), or if a dry
    run is configured, return the memory backend. With it, only the database changes.
    """
    configured = settings.firewall.backend
    order = (configured, *KERNEL_BACKENDS) if configured in KERNEL_BACKENDS else KERNEL_BACKENDS
    name = next((one for one in order if configured != "memory" and holds_anything(one)), "memory")
    # If only a part of a banned network is unbanned, the other parts get bans of other prefix lengths. These
    # may need new sets, whose size is in the plan.
    return make_backend(name, settings.plan(None))


def _load(enforcer: Enforcer) -> None:
    """Load every active ban into ``enforcer``, without changing the bans in the kernel."""
    if not enforcer.backend.enforces:
        enforcer.start(verified=False)
        return
    if enforcer.records.switched_off:
        return  # an enforcer that is switched off refuses to unban, as in the daemon
    enforcer.attach()
