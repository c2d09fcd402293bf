"""Puts the firewall in place, switches it on again, and watches it for changes by other programs."""

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

LOOK_EVERY = 1.0  # seconds between two checks of rules and sets
RULES_EVERY = 0.2  # seconds between two checks of the rules alone
SETTLED = 2.0
"""A change is checked at once if other programs changed nothing in this many seconds before it."""


class FirewallManager:
    """Puts the firewall in place and switches it on.

    ``folder`` is the folder of the control socket. A dry run may need it for the lock that it holds
    while it removes the rules of other backends.
    """

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
        """Put the rules in place, and every ban that has not ended yet.

        With ``verified``, a test packet checks that the rules drop packets of banned senders. If enforcement
        is switched off, the kernel is not changed. Raise FirewallError; ProbeError if the packet passed.
        """
        self._enforcer.start(verified=verified)
        # The wanted rules are in place, so clear the alarms that an earlier run of the daemon activated.
        self._alarms.clear(AlarmCode.FIREWALL_NOT_ENFORCED, "")
        self._alarms.clear(AlarmCode.FIREWALL_NOT_CHANGED, "")
        self._exemptions.apply(restored=True)
        self._flush_other_backends()

    def switch_on(self) -> None:
        """Put rules and bans in place again after enforcement was off. Raise FirewallError or StoreError."""
        self._enforcer.switch_on()
        self._alarms.clear(AlarmCode.FIREWALL_NOT_ENFORCED, "")
        self._friends.renew()
        self._exemptions.apply(restored=True)
        self._flush_other_backends()

    def retry_switch_on(self) -> None:
        """Put rules and bans in place again if an earlier try failed. A failure activates an alarm.

        Do nothing if they are in place, or if an administrator has switched enforcement off.
        """
        if self._enforcer.enforcing or self._enforcer.records.switched_off:
            return
        try:
            self.switch_on()
        except (FirewallError, StoreError) as error:
            self._alarms.activate(AlarmCode.FIREWALL_NOT_ENFORCED, "", f"nothing is enforced: {error}")

    def _flush_other_backends(self) -> None:
        """Remove the sets and rules of other backends from the kernel.

        The kernel has some if another backend was in use before. Call this when the rules of the present
        backend are in place. A failure activates an alarm.
        """
        if not self._enforcer.enforcing:
            return
        # A daemon that enforces has the lock already. A dry run has none, so it takes the lock here: it must
        # not remove the rules of another daemon.
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
    """Checks whether other programs have damaged ringfence's rules and sets; the checks repair the damage.

    Rules and sets are checked each second. With a backend whose changes the kernel reports, they are also
    checked at once after a change. If another change follows within two seconds (``SETTLED``), it waits for
    the next check: a program that changes its own table five times a second would multiply the checks. With
    other backends, the rules alone are also checked five times a second.

    A check that repairs damage starts processes and blocks the event loop. The pause after it is twice as
    long as the check. So checks take at most a third of the time, even if another program always removes the
    rules.
    """

    def __init__(self, backend: Backend, enforcer: Enforcer, reconciler: Reconciler) -> None:
        self._backend = backend
        self._enforcer = enforcer
        self._reconciler = reconciler

    async def run(self) -> None:
        """Check and repair until cancelled."""
        now = asyncio.get_running_loop().time
        full, pause, reported_at = now() + LOOK_EVERY, RULES_EVERY, -inf
        while True:
            await asyncio.sleep(pause)
            reported = await self._is_reported(full - now())
            if reported:
                before, reported_at = reported_at, now()
                if reported_at - before <= SETTLED:
                    await asyncio.sleep(full - now())
            began = now()
            if reported or began >= full:
                full = began + LOOK_EVERY
                self._reconciler.check()
            else:
                self._reconciler.check_rules()
            pause = max(RULES_EVERY, 2 * (now() - began))

    async def _is_reported(self, seconds: float) -> bool:
        """Wait until the kernel reports a change by another program; return whether it did.

        Return False after ``seconds`` without a change. Return False at once if nothing is enforced, or if
        the kernel does not report changes of this backend.
        """
        # The backend may have opened another descriptor since the last call.
        descriptor = self._backend.watch_fd() if self._enforcer.enforcing else None
        if descriptor is None:
            return False
        loop, reported = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(descriptor, reported.set)
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await reported.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(descriptor)
        return True
