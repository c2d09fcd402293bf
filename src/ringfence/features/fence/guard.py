"""The fence as a part of the daemon: its requests, its section of the status, and the end of its trial."""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import partial
from ipaddress import ip_network
from itertools import islice
from typing import Any

import structlog
from attrs import evolve

from ringfence.alarm_codes import Alarm
from ringfence.clock import TEN_YEARS
from ringfence.control_server import Handler
from ringfence.errors import ControlError
from ringfence.features.fence.firewall import TRIAL_FOR, fence_of
from ringfence.features.fence.links import MOST_ADMITTED_FOR, MOST_VALID, AdmitLinks
from ringfence.features.fence.services import Connection, SshPorts, connections_to
from ringfence.features.fence.settings import ports_of
from ringfence.features.fence.stage import ALSO_FENCED, ALSO_OUTSIDERS, FENCED, OUTSIDERS
from ringfence.firewall.contract import Remembered
from ringfence.firewall.limits import LimitMode
from ringfence.guard.feature import Feature, Given, Section, packets_of
from ringfence.guard.firewall_side import FirewallSide
from ringfence.guard.process import every
from ringfence.guard.request_fields import NONE, flag, network, networks, only, optional, read, seconds, text
from ringfence.lists.entries import MAX_TEXT
from ringfence.values.network import format_network, parse_network, sender_of
from ringfence.values.secret import Secret
from ringfence.values.text import printable, rfc3339

UNKNOWN = "unknown"
"""The country of an address that no database has."""

SSH_EVERY = 10.0
"""The seconds between two checks whether SSH answers at a port of other services."""
MOST_VISITORS = 50
"""The maximum number of senders at other services, and of present connections to them, in an answer."""

_NO_LIST = (
    "the fence could lock you out of this host: the kernel lists no sockets, so it is unknown whether SSH "
    "answers at a port of also; fix: modprobe tcp_diag, or also_ssh = true in [fence]"
)
_NUMBERS = {
    FENCED: "Packets from outside the fence: dropped, or passed if it only observes.",
    ALSO_FENCED: "Packets from outside the fence to other services: dropped, or only counted.",
}
_ACCOUNT = text(MAX_TEXT, 1)
_REDEEM = {"token": evolve(text(64, 1), is_secret=True), "address": network({4: 32, 6: 128})}
REQUESTS = {
    "fence": read({"networks": optional(networks(64))}, page=NONE),  # each is compared with every list
    "fence_admit": only({"what": text(MAX_TEXT, 1), "seconds": seconds(TEN_YEARS)}),
    "fence_confirm": only(NONE),
    "fence_enforce": only({"seconds": optional(seconds(TEN_YEARS)), "force": flag()}),
    "fence_link": only({"seconds": seconds(MOST_ADMITTED_FOR), "valid": seconds(MOST_VALID)}, records=False),
    "fence_link_lasting": only({"account": _ACCOUNT, "seconds": seconds(MOST_ADMITTED_FOR)}),
    # Strangers make the page send this one. Its token decides.
    "fence_redeem": evolve(only(_REDEEM, page=_REDEEM), limited=False),
    "fence_unlink": only({"account": _ACCOUNT}),
}


class FenceRequests(Feature):
    """Handles the requests about the fence of ``side``, and ends its trial and its temporary admissions."""

    def __init__(self, side: FirewallSide) -> None:
        self._side = side
        self._fence = fence_of(side)
        self._links = AdmitLinks(side.common.clock, side.common.store)
        self._ssh = SshPorts()
        self._log = structlog.get_logger()

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of the feature's requests on the control socket, by the request's name."""
        return {
            "fence": self._answer,
            "fence_enforce": self._enforce,
            "fence_confirm": self._confirm,
            "fence_admit": self._admit,
            "fence_link": self._link,
            "fence_link_lasting": self._link_lasting,
            "fence_redeem": self._redeem,
            "fence_unlink": self._unlink,
        }

    def end(self) -> None:
        """Stop the fence from dropping packets if its trial was not confirmed, because the daemon stops."""
        rules = self._side.kernel.rules
        if self._fence.end_trial():
            rules.update()
        if rules.has_succeeded:  # otherwise the process that ends trials needs the record
            self._fence.forget_trial()
            self._fence.save()

    def jobs(self) -> list[Coroutine[None, None, None]]:
        """Return the coroutines that end the trial and temporary admissions in time, and look for SSH."""
        alarms = self._side.common.alarms
        return [
            every(1.0, "fence", self._check, alarms),
            every(SSH_EVERY, "fence ssh", self._look_for_ssh, alarms),
        ]

    def _check(self) -> None:
        """End what is over, and save that; after a trial, only once the kernel drops nothing for it.

        Until then, the process that ends trials needs the record of the trial.
        """
        kernel = self._side.kernel
        if self._fence.check():
            kernel.rules.update()
        if kernel.rules.has_succeeded or not kernel.enforcer.enforcing:
            self._fence.forget_trial()
        self._fence.save()

    def section(self) -> Section:
        """Return the fence's section: packets from outside, its state, and whether it waits for friends."""
        waits = "fence" in self._side.kernel.rules.waiting
        return Section(packets_of(self._side, _NUMBERS), {"fence_waits": waits, "fence": self._state()})

    def alarms(self) -> list[Alarm]:
        """Return the present alarms about the fence."""
        return [*self._fence.alarms]

    def _state(self) -> dict[str, Any]:
        """Return the fence's state for the status. If ``counts`` is false, nothing is dropped or counted."""
        kernel = self._side.kernel
        return self._fence.summary() | {"counts": kernel.enforcer.enforcing and kernel.backend.enforces}

    async def _answer(self, request: Mapping[str, Any]) -> object:
        """Return the state of the fence, and the senders from outside in the last hour, by country.

        ``visitors`` are those at other services, and ``connected`` the present connections to these.
        ``left_out`` are those networks of the request that the fence does not admit.
        """
        kernel, settings = self._side.kernel, self._fence.settings
        asked = map(parse_network, request.get("networks", ()))
        usage = await kernel.counters.read()
        remembered = kernel.backend.remembered
        outsiders, visitors = (
            (remembered(OUTSIDERS), self._visitors(remembered(ALSO_OUTSIDERS)))
            if kernel.enforcer.enforcing
            else ((), [])
        )
        located = self._side.common.locator.of
        found = await located([one.network.network_address for one in outsiders])
        theirs = await located([one.network.network_address for one in visitors])
        ports = frozenset(ports_of(self._fence.also).tcp)
        connected = await asyncio.to_thread(connections_to, ports) if ports else ()
        return self._state() | {
            "named_countries": [printable(one) for one in settings.countries],
            "named_networks": [format_network(one) for one in settings.networks],
            "packets": usage.of(FENCED),
            "links": self._links.summary(),
            "left_out": [format_network(one) for one in asked if not self._fence.admits(one)],
            "countries": by_country(outsiders, found),
            "also_packets": usage.of(ALSO_FENCED),
            "visitors": [
                {"address": format_network(one.network), "country": country_of(place), "packets": one.packets}
                for one, place in zip(visitors, theirs, strict=True)
            ],
            "connected": [*islice(self._connected(connected), MOST_VISITORS)],
        }

    def _visitors(self, outsiders: Iterable[Remembered]) -> list[Remembered]:
        """Return the senders at other services that are still outside, those with the most packets first."""
        still = (one for one in outsiders if not self._fence.admits(one.network))
        return sorted(still, key=lambda one: one.packets, reverse=True)[:MOST_VISITORS]

    def _connected(self, connections: Iterable[Connection]) -> Iterator[dict[str, Any]]:
        """Yield present connections to other services that no list of the fence admits.

        ``needed`` is why the fence does not cut the connection: this host needs its address, for example
        because an administrator is logged in from there. None: the fence cuts it, or would.
        """
        fence = self._fence
        for one in sorted(connections, key=lambda one: (one.port, int(one.address))):
            network = ip_network(one.address)
            if not fence.lists_admit(network):
                needed = fence.why_needed(network)
                yield {"address": str(one.address), "port": f"{one.port}/tcp", "needed": needed}

    async def _look_for_ssh(self, *, again: bool = False) -> None:
        """Find out at which ports of ``also`` SSH answers, and change the rules if this has changed.

        With ``again``, programs are asked again, and ControlError is raised if this is unknown.
        """
        fence = self._fence
        ports = frozenset(ports_of(fence.settings.also).tcp)
        if ports and not fence.settings.also_ssh:
            try:
                found = await asyncio.to_thread(partial(self._ssh.among, ports, again=again))
            except OSError as error:  # a kernel without the modules for its list of sockets
                if again:
                    raise ControlError(_NO_LIST) from error
                return
            fence.leave_open([f"{port}/tcp" for port in found])
            self._side.kernel.rules.update()

    async def _enforce(self, request: Mapping[str, Any]) -> object:
        await self._look_for_ssh(again=True)
        until = self._fence.start(request.get("seconds", TRIAL_FOR), force=request.get("force") is True)
        self._side.kernel.rules.update()
        return {"until": rfc3339(until), "end": until, "mode": str(self._fence.in_force)}

    def _confirm(self, _: Mapping[str, Any]) -> object:
        return self._fence.confirm()

    def _admit(self, request: Mapping[str, Any]) -> object:
        return rfc3339(self._fence.admit(request["what"], request["seconds"]))

    def _link(self, request: Mapping[str, Any]) -> object:
        """Make a link that once admits the address from which a browser opens it; return its token.

        ``seconds`` of the request is how long it admits, ``valid`` how long (seconds) the link can be used.
        Raise ControlError if the fence is off, or if there are too many links.
        """
        self._require_fence()
        return self._links.make(request["seconds"], request["valid"]).reveal()

    def _link_lasting(self, request: Mapping[str, Any]) -> object:
        """Make the lasting link of the request's ``account``; return its token.

        ``seconds`` of the request is how long each opening admits. Raise ControlError if the fence is off, if
        the account has a link, or if there are too many.
        """
        self._require_fence()
        return self._links.make_lasting(printable(request["account"]), request["seconds"]).reveal()

    def _require_fence(self) -> None:
        if self._fence.settings.mode is LimitMode.OFF:
            raise ControlError("the fence is off, so all senders are admitted; fix: set mode in [fence]")

    def _redeem(self, request: Mapping[str, Any]) -> object:
        """Admit the request's ``address`` (IPv6: its /64) if its ``token`` is that of a link.

        A link for one use is then used up. Return the end of the admission (RFC 3339). Raise ControlError for
        an invalid token, and for a lasting link that was opened too often.
        """
        sender = format_network(sender_of(parse_network(request["address"]).network_address))
        with self._links.using(Secret(request["token"])) as link:
            until = rfc3339(self._fence.admit(sender, link.seconds, shorten=False, link=link.account))
        if link.account:
            self._log.info("fence.link_opened", account=link.account, address=sender, until=until)
        return until

    def _unlink(self, request: Mapping[str, Any]) -> object:
        """Revoke the lasting link of the request's ``account``; return the addresses that it still admitted.

        They are admitted no longer. Raise ControlError if the account has no link.
        """
        account = printable(request["account"])
        self._links.revoke(account)
        return self._fence.end_admissions(account)


def by_country(
    outsiders: Sequence[Remembered], locations: Sequence[Mapping[str, str]]
) -> list[dict[str, Any]]:
    """Return rows with a ``country`` and its numbers ``sources`` and ``packets``; the most packets first.

    ``outsiders`` are senders that the fence does not admit, ``locations`` the location of each.
    """
    sources, packets = Counter[str](), Counter[str]()
    for outsider, location in zip(outsiders, locations, strict=True):
        country = country_of(location)
        sources[country] += 1
        packets[country] += outsider.packets
    return [
        {"country": country, "sources": sources[country], "packets": number}
        for country, number in packets.most_common()
    ]


def country_of(location: Mapping[str, str]) -> str:
    """Return the country of a location, ``UNKNOWN`` if no database has it."""
    return location.get("country") or UNKNOWN


def build(given: Given) -> FenceRequests:
    """Return the part of the daemon that answers requests about the fence, and ends its trial in time."""
    return FenceRequests(given.side)
