"""The handlers of the requests on the control socket.

The gate has checked the fields of each request against the table of requests before a handler gets it.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pwd import getpwuid
from typing import Any

from attrs import asdict

from ringfence.alarms import Alarms
from ringfence.bans.book import in_parts
from ringfence.bans.listing import listed
from ringfence.bans.unban import unban, unban_all
from ringfence.clock import Clock, format_duration
from ringfence.control import MOST_PAST
from ringfence.control_server import PEER, Encoded, Handler, encoded_rows
from ringfence.errors import ControlError
from ringfence.friends.exchange import FriendRequests
from ringfence.guard.ban_list import bans_report
from ringfence.guard.facts import AccountFactsReader, AddressFactsReader, FailureMemory, past_bans, since_from
from ringfence.guard.firewall_side import FirewallSide, KeptAlarms
from ringfence.guard.status import StatusCollector, status_report
from ringfence.ledger import key_of
from ringfence.lists.handlers import ListRequests
from ringfence.store.database import Store
from ringfence.store.rows import shortened
from ringfence.store.tables import KEEP_ALARMS
from ringfence.values.network import Network, NetworkSet, format_network, parse_network
from ringfence.values.text import printable


class RequestHandlers:
    """Handles the requests about bans, lists, friends, alarms and the state of the firewall.

    ``status`` collects the data for the status from the counters of the firewall's rules. ``failures``
    remembers failed attempts by account.
    """

    def __init__(
        self,
        side: FirewallSide,
        status: StatusCollector,
        failures: FailureMemory,
    ) -> None:
        self._side = side
        self._store = side.common.store
        self._enforcer = side.kernel.enforcer
        self._clock = side.common.clock
        self._collector = status
        self._failures = failures
        self._offs = 0  # the number of requests `off`
        self._friend_requests = FriendRequests(side.exempt.friends, side.common.clock)

    def handlers(self) -> dict[str, Handler]:
        """Return the handler of each of these requests, by the request's name."""
        side = self._side
        return {
            "bans": self._bans,
            "past_bans": self._past_bans,
            "status": self._status,
            "ban": self._ban,
            "unban": self._unban,
            "off": self._off,
            "on": self._on,
            **ListRequests(side.exempt.lists, self._store.entries, self._clock).handlers(),
            "friends": self._friends,
            **self._friend_requests.handlers(),
            **side.common.followers.handlers(),
            **AlarmRequests(side.common.alarms, side.common.kept_alarms, self._store, self._clock).handlers(),
            "locations": self._locations,
            "why": AddressFactsReader(side).answer,
            "why_account": AccountFactsReader(side, self._failures).answer,
        }

    def _bans(self, request: Mapping[str, Any]) -> Encoded:
        """Return the kernel's bans as a JSON list: at most ``most`` of the request, those that end last.

        If the request has ``networks``, return only the bans that overlap one of them.
        """
        wanted = NetworkSet(_networks(request)) if "networks" in request else None
        return Encoded(self._listing(wanted, request["most"]))

    def _listing(self, wanted: NetworkSet | None, most: int) -> Iterator[bytes]:
        """Yield the JSON list of the kernel's bans in parts: those that overlap ``wanted`` (None: all).

        At most ``most`` are listed. A thread reads them, so no new ban waits.
        """
        ledger = self._side.kernel.enforcer.ledger
        elements = listed(self._side.kernel.backend, ledger.all_keys())
        if wanted is not None:
            elements = (element for element in elements if wanted.overlaps(element.network))
        yield from bans_report(elements, ledger, self._clock.wall(), most)

    def _past_bans(self, request: Mapping[str, Any]) -> Encoded:
        """Return the bans that have ended in the requested period, as a JSON list."""
        wanted, now = _networks(request) if "networks" in request else None, self._clock.wall()
        return encoded_rows(past_bans(self._store.bans, since_from(request, now), now, wanted))

    async def _status(self, _: Mapping[str, Any]) -> object:
        usage = await self._side.kernel.counters.read()
        self._side.kernel.reconciler.check()
        report = status_report(self._enforcer, self._collector.collect(usage))
        watched: Any = report["watched"]
        return report | {
            "watched": await self._side.common.locator.add_to(watched, "address"),
            "friends": len(self._side.exempt.friends.friends),
        }

    async def _locations(self, request: Mapping[str, Any]) -> object:
        """Return the location of the first address of each network in the request's ``networks``."""
        addresses = [network.network_address for network in _networks(request)]
        return [{**one} for one in await self._side.common.locator.of(addresses)]

    def _friends(self, request: Mapping[str, Any]) -> Encoded:
        """Return the friends (known phones and trunks) as a JSON list. There may be tens of thousands."""
        wanted = _networks(request) if "networks" in request else None
        return Encoded(self._friend_requests.listed(wanted))

    async def _ban(self, request: Mapping[str, Any]) -> object:
        """Ban the networks of the request, ``CHUNK`` at a time, so that a rule's ban does not wait for all.

        The answer has ``problems``, a line of text for each network that was not banned, and ``notes``, a
        line for each ban that replaces a longer one.
        """
        problems, notes, seconds = list[str](), list[str](), request["seconds"]
        reason, force = request.get("reason", ""), request.get("force") is True
        for part in in_parts(_networks(request)):
            before, now = self._ends(part), self._enforcer.now()
            problems += self._enforcer.ban(part, seconds, reason, force=force)
            notes += [
                f"{format_network(network)}: this ban of {format_duration(seconds)} replaces a longer one, "
                f"which had {format_duration(before[network] - now)} left"
                for network, end in self._ends(part).items()
                if before.get(network, end) > end + 1
            ]
            await asyncio.sleep(0)
        return {"problems": problems, "notes": notes}

    def _ends(self, networks: Sequence[Network]) -> dict[Network, float]:
        """Return when the full bans of ``networks`` end (epoch seconds), of those that have one."""
        ledger = self._enforcer.ledger
        return {one: record.expires for one in networks if (record := ledger.get(key_of(one))) is not None}

    async def _unban(self, request: Mapping[str, Any]) -> object:
        if request.get("all") is True:
            return await unban_all(self._enforcer)
        if "networks" not in request:
            raise ControlError("unban: name networks, or all")
        return asdict(await unban(self._enforcer, _networks(request)))

    def _off(self, _: Mapping[str, Any]) -> object:
        self._offs += 1
        self._enforcer.switch_off()
        return True

    async def _on(self, _: Mapping[str, Any]) -> object:
        before = self._offs
        caught_up = await self._store.best_effort.caught_up()
        if self._offs != before:
            raise ControlError("enforcement was switched off again meanwhile; try again: ringfence on")
        self._side.kernel.manager.switch_on(recorded=caught_up)
        return True


def _networks(request: Mapping[str, Any]) -> list[Network]:
    return [parse_network(text) for text in request["networks"]]


# -- requests about alarms
#
# The request ``{"do": "alarms"}`` returns the active alarms. With ``"past": true`` it returns the alarms that
# cleared in the last ``seconds``. The request ``alarms_dismiss`` has the arguments ``numbers`` (or
# ``"all": true``) and ``by``, the name of the person. The kernel reports which user sent a request. The
# daemon records this user's name, too.


_MAX_NAME = 64  # bytes of the name that a person gives


class AlarmRequests:
    """Handles the requests that list and dismiss alarms."""

    def __init__(self, alarms: Alarms, kept: KeptAlarms, store: Store, clock: Clock) -> None:
        self._alarms = alarms
        self._kept = kept
        self._store = store
        self._clock = clock

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of the requests ``alarms`` and ``alarms_dismiss``, by these names."""
        return {
            "alarms": self._list,
            "alarms_dismiss": self._dismiss,
        }

    def _list(self, request: Mapping[str, Any]) -> Encoded:
        """Return the active alarms, or the past ones on request, as JSON. There may be thousands."""
        if request.get("past") is not True:
            records = self._alarms.records()  # in the event loop, which alone may change the alarms
            return encoded_rows(record.as_json() for record in records)
        return encoded_rows(self._past(self._clock.wall() - request.get("seconds", KEEP_ALARMS)))

    def _past(self, since: float) -> Iterator[dict[str, Any]]:
        for record in self._store.alarms.past(since, MOST_PAST):
            yield record.as_json()

    async def _dismiss(self, request: Mapping[str, Any]) -> object:
        """Dismiss alarms; return them, and the requested numbers that no active alarm has.

        Raise ControlError if the request names no alarm.
        """
        by = await asyncio.to_thread(_person, request)  # users' names may be on a slow server (LDAP)
        if request.get("all") is True:
            numbers = [record.number for record in self._alarms.records() if record.dismissed is None]
        elif "numbers" in request:
            numbers = request["numbers"]
        else:
            raise ControlError("alarms are named by their numbers")
        done, unknown = [], []
        for number in dict.fromkeys(numbers):
            record = self._alarms.dismiss(number, by)
            if record is None:
                unknown.append(number)
            else:
                done.append(record.as_json())
            await asyncio.sleep(0)  # lets other tasks run, because there may be thousands of alarms
        self._kept.save()
        return {"done": done, "unknown": unknown}


def _person(request: Mapping[str, Any]) -> str:
    """Return who sent a request, as text such as ``Ann (as root)``.

    ``Ann`` is the name in the request, ``root`` the user who sent the request. If one of them is missing, or
    both are equal, return one name alone. If both are missing, return "unknown".
    """
    peer, by = PEER.get(), request.get("by", "")
    try:
        name = getpwuid(peer.user).pw_name if peer is not None else ""
    except KeyError:
        name = str(peer.user) if peer is not None else ""
    by = shortened(printable(by), _MAX_NAME)
    return f"{by} (as {name})" if by and name and by != name else by or name or "unknown"
