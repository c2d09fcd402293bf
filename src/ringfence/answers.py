"""What the daemon answers to commands, over the control socket."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from attrs import asdict

from ringfence import control, trial
from ringfence.bans.exempt import overlap
from ringfence.bans.lifting import unban, unban_all
from ringfence.control import Encoded
from ringfence.errors import ControlError, StoreError
from ringfence.firewall.contract import Roll, Usage
from ringfence.friends.requests import Requests
from ringfence.keeper import Keeper
from ringfence.model import Network, network_from
from ringfence.report import Seen, bans_report, status_report
from ringfence.values import MAX_DURATION
from ringfence.why.asking import Asking


class Answers:
    """Answers from the firewall's side of the daemon; ``seen`` says how all the rest is."""

    def __init__(self, keeper: Keeper, seen: Callable[[Usage], Seen]) -> None:
        self._keeper = keeper
        self._enforcer = keeper.enforcer
        self._seen = seen
        self._requests = Requests(keeper.friends, keeper.enforcer.clock.wall)

    def handlers(self) -> Mapping[str, control.Handler]:
        """Give what answers each request."""
        return {
            "bans": self._bans,
            "status": self._status,
            "ban": self._ban,
            "unban": self._unban,
            "off": self._off,
            "on": self._on,
            "confirm": self._confirm,
            **self._keeper.lists.handlers(),
            "friends": self._friends,
            **self._requests.handlers(),
            "why": Asking(self._keeper).answer,
        }

    async def _bans(self, request: Mapping[str, Any]) -> Encoded:
        """Read the kernel's list in a thread: nobody who only looks holds up a ban."""
        wanted = _networks(request) if "networks" in request else None
        return await asyncio.to_thread(partial(self._listing, wanted))

    def _listing(self, wanted: list[Network] | None) -> Encoded:
        elements = self._enforcer.backend.list()
        found = (
            element
            for element in elements
            if wanted is None or any(overlap(element.network, network) for network in wanted)
        )
        return Encoded(bans_report(found, self._enforcer.ledger, self._enforcer.clock.wall()))

    async def _status(self, _: Mapping[str, Any]) -> object:
        usage = await self._keeper.usage()
        self._keeper.reconciler.look()
        report = status_report(self._enforcer, self._seen(usage))
        friends = len(self._keeper.friends.friends)
        return report | {"friends": friends, "limiter_waits": self._keeper.limiter_waits}

    async def _friends(self, request: Mapping[str, Any]) -> Encoded:
        """Write the list in a thread: there may be tens of thousands."""
        wanted = _networks(request) if "networks" in request else None
        return Encoded(await asyncio.to_thread(list, self._requests.listed(wanted)))

    def _ban(self, request: Mapping[str, Any]) -> object:
        seconds, reason = request.get("seconds"), request.get("reason", "")
        if not isinstance(seconds, int | float) or not 0 < seconds <= MAX_DURATION:
            raise ControlError("a ban needs a length: seconds, above 0 and at most ten years")
        if not isinstance(reason, str):
            raise ControlError("a reason is a text")
        force = request.get("force") is True
        problems = self._enforcer.ban(_networks(request), seconds, reason, force=force)
        if force:  # who was protected is no longer passed over
            self._enforcer.fill(Roll.ALLOW)
        return problems

    async def _unban(self, request: Mapping[str, Any]) -> object:
        if request.get("all") is True:
            return await unban_all(self._enforcer)
        return asdict(unban(self._enforcer, _networks(request)))

    def _off(self, _: Mapping[str, Any]) -> object:
        self._enforcer.switch_off()
        fleeting = self._enforcer.records.fleeting
        if fleeting:
            raise StoreError(
                f"everything is removed, but that it is to stay so is not remembered: {fleeting}"
            )
        return True

    def _on(self, _: Mapping[str, Any]) -> object:
        self._keeper.switch_on()
        return True

    def _confirm(self, _: Mapping[str, Any]) -> object:
        return trial.confirm(self._enforcer.records.store)


def _networks(request: Mapping[str, Any]) -> list[Network]:
    try:
        return [network_from(text) for text in request["networks"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ControlError(f"not an address or network: {error}") from None
