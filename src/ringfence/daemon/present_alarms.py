"""Alarms about the present state of the firewall. Each alarm lasts as long as the state does."""

from collections.abc import Iterator

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.bans.enforcer import Enforcer


def firewall_alarms(enforcer: Enforcer) -> Iterator[Alarm]:
    """Yield the alarms that follow from the firewall's present state.

    Missing rules for the wire source are not here, but in :attr:`WireReader.alarms`.
    """
    backend, opened = enforcer.backend, enforcer.opened
    if not enforcer.enforcing:
        yield Alarm(AlarmCode.FIREWALL_OFF, "", "no address is banned; switch it on with: ringfence on")
    elif not backend.enforces:
        yield Alarm(AlarmCode.FIREWALL_DRY_RUN, "", f"the {backend.name} firewall drops nothing")
    if enforcer.firewall_error:
        pending = len(enforcer.known.pending_keys())
        text = f"the firewall refuses bans ({pending} pending): {enforcer.firewall_error}"
        yield Alarm(AlarmCode.FIREWALL_REFUSED, "", text)
    if opened is not None and opened.limiter and backend.enforces:
        yield Alarm(AlarmCode.LIMITER_ABSENT, "", f"the limiter is not in place: {opened.limiter}")
