"""The firewall as a whole: put in place, switched on again, and watched for changes by other programs."""

import asyncio
from contextlib import nullcontext
from math import inf
from pathlib import Path

import structlog

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.bans.enforcer import Enforcer
from ringfence.bans.reconcile import Reconciler
from ringfence.daemon.exemption_tracker import ExemptionTracker
from ringfence.daemon.kernel_lists import KernelFriends
from ringfence.daemon.lock import claim_sets
from ringfence.errors import FirewallBusyError, FirewallError, StoreError
from ringfence.firewall.cleanup import flush_other_backends
from ringfence.firewall.contract import Backend

LOOK_EVERY = 1.0
SETTLED = 2.0
"""Seconds without a change by another program, after which the next one is checked at once."""


class FirewallManager:
    """Puts the firewall in place and switches it on. ``folder`` is the folder of the control socket."""

    def __init__(
        self,
        backend: Backend,
        enforcer: Enforcer,
        exemptions: ExemptionTracker,
        friends: KernelFriends,
        alarms: Alarms,
        folder: Path,
    ) -> None:
        self._backend = backend
        self._enforcer = enforcer
        self._exemptions = exemptions
        self._friends = friends
        self._alarms = alarms
        self._folder = folder
        self._log = structlog.get_logger()

    def start(self, *, verified: bool = True) -> None:
        """Put the rules and every ban that has time left in place; raise as :meth:`Enforcer.start`."""
        self._enforcer.start(verified=verified)
        self._exemptions.apply(restored=True)
        self._flush_other_backends()

    def switch_on(self) -> None:
        """Start to enforce again."""
        self._enforcer.switch_on()
        self._friends.renew()
        self._exemptions.apply(restored=True)
        self._flush_other_backends()

    def retry_switch_on(self) -> None:
        """Try again to enforce, if an earlier attempt failed."""
        if self._enforcer.enforcing or self._enforcer.records.switched_off:
            return
        try:
            self.switch_on()
        except (FirewallError, StoreError) as error:
            self._alarms.activate(AlarmCode.FIREWALL_NOT_ENFORCED, "", f"nothing is enforced: {error}")
        else:
            self._alarms.clear(AlarmCode.FIREWALL_NOT_ENFORCED, "")

    def _flush_other_backends(self) -> None:
        """Remove the sets and rules of another backend from the kernel, after this one is in place."""
        if not self._enforcer.enforcing:
            return
        # A dry run needs no lock. But it must not remove the rules of another daemon, so it takes the lock
        # for the removal.
        claim = nullcontext() if self._backend.enforces else claim_sets(self._folder)
        try:
            with claim:
                others = flush_other_backends(self._backend.name)
        except FirewallBusyError:
            return
        except FirewallError as error:
            text = f"another backend's rules stay: {error}; fix, as root: ringfence off, ringfence on"
            self._alarms.activate(AlarmCode.FIREWALL_LEFTOVERS, "", text)
        else:
            self._alarms.clear(AlarmCode.FIREWALL_LEFTOVERS, "")
            if others:
                self._log.warning("firewall.taken_over", before=others, now=self._backend.name)


class ChangeWatch:
    """Checks the firewall every second, and at once after the first change by another program."""

    def __init__(self, backend: Backend, enforcer: Enforcer, reconciler: Reconciler) -> None:
        self._backend = backend
        self._enforcer = enforcer
        self._reconciler = reconciler
        self._watched: int | None = None
        self._notified_at = -inf

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self._watch()
            self._reconciler.check()

    def _watch(self) -> None:
        """Watch for one change by another program until the next look.

        The descriptor may be another one each time.
        """
        loop = asyncio.get_running_loop()
        if self._watched is not None:
            loop.remove_reader(self._watched)
        self._watched = self._backend.watch_fd() if self._enforcer.enforcing else None
        if self._watched is not None:
            loop.add_reader(self._watched, self._notified)

    def _notified(self) -> None:
        """Check at once after a change by another program.

        Further changes wait for the next look, because there may be many: a program that changes its own
        table five times a second would double the checks.
        """
        loop = asyncio.get_running_loop()
        if self._watched is not None:
            loop.remove_reader(self._watched)
            self._watched = None
        before, self._notified_at = self._notified_at, loop.time()
        if self._notified_at - before > SETTLED:
            self._reconciler.check()
