"""The restore at boot, before the network is up: bans that have not ended are added to the kernel again.

The daemon starts later and takes these bans over. So a banned sender gets no answer in between, however long
the daemon takes to start.
"""

from contextlib import ExitStack

from ringfence.clock import Clock
from ringfence.config.schema import Settings
from ringfence.daemon import trial
from ringfence.daemon.collector import collector_paused
from ringfence.daemon.firewall_side import build_firewall_side, choose
from ringfence.daemon.lock import claim_sets
from ringfence.detect.detector import Detector
from ringfence.store.database import Store


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
        chosen = choose(settings)
        stack.callback(chosen.backend.close)
        if chosen.backend.enforces:
            stack.enter_context(claim_sets(settings.control.socket.parent))
        side = build_firewall_side(settings, store, Detector(()), chosen, Clock())
        stack.enter_context(collector_paused())
        side.start(verified=False)
        done = f"{len(side.enforcer.known.ledger)} bans are in place ({chosen.backend.name})"
        problems = (store.damage(), store.memory_reason, store.best_effort.error)
        return "; ".join([done, *filter(None, problems)])
