"""Unbanning without the daemon: a command that runs as root changes the kernel and the database directly.

While a daemon runs, these functions raise an error: the daemon has locked the database and the kernel's sets,
and it would restore the bans.
"""

import asyncio
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from ringfence.bans.enforcer import Enforcer
from ringfence.bans.unban import UnbanResult, unban, unban_all
from ringfence.clock import Clock
from ringfence.config.schema import Settings
from ringfence.daemon import trial
from ringfence.daemon.firewall_manager import find_sip_sockets
from ringfence.daemon.firewall_side import build_firewall_side, choose
from ringfence.daemon.process import claim_sets, collector_paused, make_folder
from ringfence.daemon.process import configure as configure_logging
from ringfence.detect.detector import Detector
from ringfence.errors import DaemonUnreachableError, StoreError
from ringfence.firewall import KERNEL_BACKENDS, make_backend
from ringfence.firewall.cleanup import holds_anything
from ringfence.firewall.contract import Backend
from ringfence.firewall.requirements import require_capabilities
from ringfence.model import Network
from ringfence.store.database import Store

# -- the restore at boot, before the network is up: bans that have not ended are added to the kernel again
#
# The daemon starts later and takes these bans over. So a banned sender gets no answer in between, however
# long the daemon takes to start.


def restore_bans(settings: Settings) -> str:
    """Restore rules, lists and bans in the kernel. Return a summary as text for people.

    Do nothing if ringfence is switched off, or if a trial (``trial.py``) has begun and was not confirmed. No
    test packet is sent, because the loopback interface may not be up yet. Raise RingfenceError if the restore
    fails.
    """
    with ExitStack() as stack:
        store = stack.enter_context(Store.open_or_memory(settings.store.path))
        if store.records.switched_off:
            return "ringfence is switched off: nothing was put in place"
        if store.best_effort.read(lambda: trial.until(store.state), None) is not None:
            return "a trial was not confirmed: nothing was put in place"
        settings = settings.without_wire()  # nothing reads it until the daemon starts
        chosen = choose(settings)
        stack.callback(chosen.backend.close)
        if chosen.backend.enforces:
            stack.enter_context(claim_sets(settings.control.socket.parent))
        side = build_firewall_side(settings, store, Detector(()), chosen, Clock())
        stack.enter_context(collector_paused())
        side.start(verified=False)
        done = f"{len(side.enforcer.ledger)} bans are in place ({chosen.backend.name})"
        problems = (store.damage(), store.memory_reason, store.best_effort.error)
        return "; ".join([done, *filter(None, problems)])


_PROC = Path("/proc")


def unban_networks(settings: Settings, networks: Sequence[Network]) -> UnbanResult:
    """Unban ``networks`` as the daemon does.

    The result has the networks that were not banned, and the bans that the kernel refused to remove. Raise
    RingfenceError if this process may not unban, or cannot record it.
    """
    with _enforcer(settings) as enforcer:
        return asyncio.run(unban(enforcer, networks))


def unban_everything(settings: Settings) -> int:
    """Remove every ban and return their number. Raise RingfenceError if that fails."""
    with _enforcer(settings) as enforcer:
        return asyncio.run(unban_all(enforcer))


@contextmanager
def _enforcer(settings: Settings) -> Iterator[Enforcer]:
    """Yield an enforcer that knows every active ban.

    Raise RingfenceError at the start if the process is not root, or if a daemon runs. Raise StoreError at the
    end if bans were removed from the kernel, but the database could not record it.
    """
    configure_logging(logging.CRITICAL)  # the command prints the result
    _require_root()
    make_folder(settings.store.path.parent)  # missing if systemd has never started the unit
    store = Store.open_or_memory(settings.store.path)
    claim = claim_sets(settings.control.socket.parent)
    with store, claim, closing(_backend(settings)) as backend:
        enforcer = Enforcer(backend, store.records, Detector(()), Clock())
        _load(enforcer)
        yield enforcer
        failed = store.memory_reason or store.best_effort.error
        if enforcer.counts.unbanned and failed:
            raise StoreError(
                f"removed from the kernel, but the next start bans again: this is not recorded: {failed}"
            )


def _require_root() -> None:
    if os.geteuid() != 0:
        raise DaemonUnreachableError(
            "no daemon answers, and without it only root can unban; fix: run this as root (sudo), "
            "or start the daemon: systemctl start ringfence"
        )
    require_capabilities(_PROC, "CAP_NET_ADMIN")


def _backend(settings: Settings) -> Backend:
    """Return the backend whose sets or rules are in the kernel.

    If several backends have some, prefer the configured one. If none has any (after a reboot), or if a dry
    run is configured, return the memory backend. With it, only the database changes.
    """
    configured = settings.firewall.backend
    order = (configured, *KERNEL_BACKENDS) if configured in KERNEL_BACKENDS else KERNEL_BACKENDS
    name = next((one for one in order if configured != "memory" and holds_anything(one)), "memory")
    # If only a part of a banned network is unbanned, the other parts get bans of other prefix lengths. These
    # may need new rules. The rules contain the SIP ports, so the ports are looked up here.
    return make_backend(name, settings.plan(find_sip_sockets(settings).ports))


def _load(enforcer: Enforcer) -> None:
    """Load every active ban into ``enforcer``, without changing the bans in the kernel."""
    if not enforcer.backend.enforces:
        enforcer.start(verified=False)
        return
    if enforcer.records.switched_off:
        return  # an enforcer that is switched off refuses to unban, as in the daemon
    enforcer.attach()
