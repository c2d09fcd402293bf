"""At boot, before the network is up: every ban that has time left goes back into the kernel, and that is all.

The daemon comes later, finds them there and goes on. So there is no moment in which a banned sender is
answered, however long the daemon takes.
"""

from contextlib import ExitStack

from ringfence import trial
from ringfence.bans.records import Records
from ringfence.clock import Clock
from ringfence.detect.detector import Detector
from ringfence.firewall.ownership import claim_sets
from ringfence.keeper import Keeper
from ringfence.settings import Settings
from ringfence.store import Store


def put_back(settings: Settings) -> str:
    """Put rules, lists and bans in place; say what was done. Raises RingfenceError where that cannot be.

    Nothing is tried with a packet: the loopback interface may not be up yet.
    """
    with ExitStack() as stack:
        store, fleeting = Store.open_anyhow(settings.store.path)
        stack.enter_context(store)
        if store.switched_off:
            return "ringfence is switched off: nothing was put in place"
        if trial.until(store) is not None:
            return "a trial was not confirmed: nothing was put in place"
        keeper = Keeper(settings, Records(store, fleeting=fleeting), Detector(()), Clock())
        stack.callback(keeper.close)
        if keeper.enforcer.backend.enforces:
            stack.enter_context(claim_sets())
        keeper.mount(verified=False)
        return f"{len(keeper.enforcer.ledger)} bans are in place ({keeper.enforcer.backend.name})"
