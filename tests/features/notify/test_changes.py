"""Changes by requests, from the gate of the control socket to notifications."""

import asyncio
import json
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from tests.guard.test_requests import Office
from tests.support.kept import kept, settings
from tests.support.tables import with_tables

from ringfence import control_server
from ringfence.config.converters import Duration, Text
from ringfence.control_server import Peer
from ringfence.errors import FirewallError
from ringfence.features.notify.guard import Notifier
from ringfence.features.notify.settings import HookSettings, NotifySettings
from ringfence.guard.request_table import RequestGate, Rights

ROOT = "by user 0 (root), process 1"


class Desk:
    """A notifier that gets each change, and the requests of root."""

    def __init__(self, office: Office) -> None:
        side, self.backend = office.kept.side, office.kept.backend
        hook = HookSettings(command=(Text("/x"),), digest=Duration(3_600.0))
        self.notifier = Notifier(with_tables(notify=NotifySettings(hook=(hook,))), side.common.clock)
        self._handlers = RequestGate(
            {**office.handlers, **self.notifier.handlers()},
            Rights(999),
            side.exempt.friends.friends,
            [self.notifier],
            side.common.clock,
            side.common.store.best_effort,
        ).handlers()

    def ask(self, do: str, **request: object) -> None:
        """Send a request."""

        async def answered() -> None:
            control_server.PEER.set(Peer(0, 1))
            answer: Any = self._handlers[do](json.loads(json.dumps(request)))
            await answer

        asyncio.run(answered())

    def recorded(self) -> list[tuple[str, str, str, str]]:
        """Return topic, name, subject and text of each notification."""
        [outbox] = self.notifier._outboxes
        kept = outbox._digest._kept.values()
        return [(str(one.topic), one.name, one.subject, one.text) for topic in kept for one in topic]


@pytest.fixture(name="desk")
def _desk(tmp_path: Path) -> Iterator[Desk]:
    """Return a notifier behind the gate of a mounted guard."""
    with kept(tmp_path, settings("198.51.100.0/24")) as made:
        yield Desk(Office(made))


def test_only_an_unban_that_ended_something_is_news(desk: Desk) -> None:
    """The notification has the addresses and notes, or the number of all bans that ended."""
    desk.ask("ban", networks=["192.0.2.1", "203.0.113.0/24"], seconds=60, reason="")
    desk.ask("unban", networks=["192.0.2.9"])
    desk.ask("unban", networks=["192.0.2.1"])
    desk.ask("unban", networks=["203.0.113.1"])
    for _ in range(2):
        desk.ask("unban", all=True)

    assert desk.recorded() == [
        ("unban", "", "192.0.2.1", ""),
        ("unban", "", "203.0.113.1", "203.0.113.0/24: the rest of it stays banned, in 8 parts"),
        ("unban", "", "all", "8 bans ended"),
    ]


def test_an_unban_that_the_kernel_refuses_in_part_is_news(desk: Desk) -> None:
    """If one of the bans of a network ends, that is news, with the reason why the other one does not."""
    desk.ask("ban", networks=["192.0.2.1", "192.0.2.2"], seconds=60, reason="")
    desk.backend.refuses[ip_network("192.0.2.2")] = FirewallError("no answer")
    for network in ("192.0.2.0/24", "192.0.2.2"):
        desk.ask("unban", networks=[network])

    assert desk.recorded() == [("unban", "", "192.0.2.0/24", "192.0.2.2: no answer")]


def test_an_unban_of_allowed_addresses_is_news(desk: Desk) -> None:
    """The allow list may have ended their bans already; otherwise an unban of nothing is no news."""
    for allowed in (False, True):
        desk.ask("unban", networks=["192.0.2.9"], allowed=allowed)

    assert desk.recorded() == [("unban", "", "192.0.2.9", "")]


def test_a_change_of_a_list_is_news_with_its_author(desk: Desk) -> None:
    """The removal of an entry that is not there is no news."""
    desk.ask("deny_add", what=["192.0.2.0/24"])
    for _ in range(2):
        desk.ask("deny_remove", what=["192.0.2.0/24"])

    assert desk.recorded() == [
        ("list", "deny add", "192.0.2.0/24", ROOT),
        ("list", "deny remove", "192.0.2.0/24", ROOT),
    ]
