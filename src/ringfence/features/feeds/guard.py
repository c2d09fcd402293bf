"""The feeds as a part of the daemon: their requests, their section of the status, and their alarms."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from ringfence.alarm_codes import Alarm
from ringfence.config.schema import Settings
from ringfence.control_server import Handler
from ringfence.errors import ControlError
from ringfence.features.feeds.denied import Feeds
from ringfence.guard.feature import Feature, Given, Section
from ringfence.guard.process import make_folder
from ringfence.guard.request_fields import FILTER, MOST_FILTER, NONE, flag, only, optional, read, texts
from ringfence.lists.entries import MAX_NAME
from ringfence.lists.manager import Lists
from ringfence.store.database import Store
from ringfence.values.text import printable

REQUESTS = {
    "feeds": read({"networks": FILTER}, page=NONE),
    "feeds_refresh": only({"names": optional(texts(MOST_FILTER, MAX_NAME)), "force": flag()}, records=False),
}


class FeedReporter(Feature):
    """Answers requests about feeds (block lists of others). ``wall`` returns seconds since the epoch."""

    def __init__(self, lists: Lists, feeds: Feeds, wall: Callable[[], float]) -> None:
        self._lists = lists
        self._feeds = feeds
        self._wall = wall

    def handlers(self) -> Mapping[str, Handler]:
        """Return the handlers of the feature's requests on the control socket, by the request's name."""
        return {"feeds": self.report, "feeds_refresh": self.refresh}

    def section(self) -> Section:
        """Return the feeds and their states, for the status."""
        return Section(more={"feeds": self.report({})})

    def alarms(self) -> list[Alarm]:
        """Return the present alarms about feeds."""
        now = self._wall()
        return [alarm for feed in self._feeds.all.values() for alarm in feed.alarms(now)]

    def report(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return each feed as JSON values, with the networks of ``request`` that it denies."""
        return self._feeds.report(request, self._wall())

    async def refresh(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Read the files of all feeds now; return the feeds as JSON values.

        If the request has ``force``, accept any size up to the maximum of the feeds ``names``. Raise
        ControlError if one of these does not exist.
        """
        names = frozenset(request.get("names", ()))
        unknown = names - self._feeds.all.keys()
        if unknown:
            raise ControlError(f"no feed has the name {printable(min(unknown))}; see: ringfence feeds list")
        if request.get("force"):
            await self._lists.in_thread(self._feeds.accept, names)
        await self._lists.refresh()
        return self.report({})


def build(given: Given) -> FeedReporter:
    """Return the feature that answers requests about the feeds that the lists use."""
    lists = given.side.exempt.lists
    [feeds] = (other for other in lists.others if isinstance(other, Feeds))
    return FeedReporter(lists, feeds, given.side.common.clock.wall)


def _offline(settings: Settings, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the feeds as JSON, with the lists that a daemon took over last.

    Raise StoreError if the database cannot be opened.
    """
    make_folder(settings.store.path.parent)  # the daemon may never have run
    # Opened only to check the rights: without them, the files of the lists would seem to be missing.
    with Store.open(settings.store.path, owner=False):
        feeds, now = Feeds(settings), time.time()
        feeds.compose(now)
    return feeds.report(arguments, now)


OFFLINE = {"feeds": _offline}
