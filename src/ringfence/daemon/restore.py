"""Restore at boot, before the network is up: every ban that has time left goes back into the kernel.

The daemon starts later and takes these bans over. So a banned sender never gets an answer, however long the
daemon takes to start.
"""

from contextlib import ExitStack

from ringfence.clock import Clock
from ringfence.config.schema import Settings
from ringfence.daemon import trial
from ringfence.daemon.firewall_side import build_firewall_side, choose
from ringfence.daemon.lock import claim_sets
from ringfence.detect.detector import Detector
from ringfence.store.best_effort import Records
from ringfence.store.database import Store


def restore_bans(settings: Settings) -> str:
    """Put rules, lists and bans in place, and return a summary. Raise RingfenceError if that fails.

    No test packet is sent, because the loopback interface may not be up yet.
    """
    with ExitStack() as stack:
        store, fleeting = Store.open_or_memory(settings.store.path)
        stack.enter_context(store)
        records = Records(store, fleeting=fleeting)
        if records.switched_off:
            return "ringfence is switched off: nothing was put in place"
        if records.read(lambda: trial.until(store), None) is not None:
            return "a trial was not confirmed: nothing was put in place"
        chosen = choose(settings)
        stack.callback(chosen.backend.close)
        if chosen.backend.enforces:
            stack.enter_context(claim_sets(settings.control.socket.parent))
        side = build_firewall_side(settings, records, Detector(()), chosen, Clock())
        side.start(verified=False)
        done = f"{len(side.enforcer.ledger)} bans are in place ({chosen.backend.name})"
        return "; ".join([done, *filter(None, (records.damage, fleeting, records.error))])
