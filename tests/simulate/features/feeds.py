"""A feed in a story: a block list in a file, which the administrator's program changes, damages or removes.

No feed has a URL. So no fetcher runs, and nothing is downloaded.
"""
# ruff: noqa: ANN401 - a replaced function may be any

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tests.judge.oracle import Violation
from tests.simulate.feature import Feature, Replaced, Stage
from tests.simulate.put_back import Row, does_nothing
from tests.simulate.step import Kinds, Step, times

from ringfence.firewall import network_lists
from ringfence.lists import kept
from ringfence.lists.prefixes import Prefixes

Addresses = frozenset[str]

TAKEN_WITHIN = 31.0
"""Seconds after which the daemon has taken a list over, even if it gets SIGTERM meanwhile.

It waits two seconds for the end of a change, looks every five seconds, and stops within twenty.
"""

_LISTS: Sequence[Sequence[str]] = (
    ("203.0.113.220",),
    ("203.0.113.221",),
    ("203.0.113.222", "203.0.113.224"),
    ("203.0.113.226", "203.0.113.227", "203.0.113.229"),
)
"""The lists. No sender of a story has one of these addresses, and no list has ten times more than another."""
_DAMAGED = ("203.0.113.228", "x y")
"""The lines of a damaged list. The first line is right."""

_NONE: Addresses = frozenset()
_RIGHT, _REFUSED, _GONE = frozenset[str](), frozenset({"feed.refused"}), frozenset({"feed.failed"})
"""The alarms that must be active while the file is right, is damaged, or does not exist."""

_WRITE = kept.write
_DENIED = "ringfence.features.feeds.denied"
_CHANGED = (Step("feeds", wait=0.0), Step("feed changes", wait=8.0, number=1))
"""A list that the daemon takes over, if it has the time."""


def _without_times(right: Any) -> Any:
    def signature(path: Path) -> Any:
        found = right(path)
        return None if found is None else (found[0], 0, found[2])

    return signature


def _keeps_nothing(_right: Any) -> Any:
    return lambda _self, feed, _now: feed


_FAULTS: Sequence[Row] = (
    (
        "a damaged feed",
        "The lines of a damaged list that could be parsed replaced the last good list.",
        f"{_DENIED}:_check_bad_lines",
        does_nothing,
        "Z",
        [*_CHANGED, Step("feed is damaged", wait=35.0)],
    ),
    (
        "a feed without its file at a restart",
        "The last good list was in memory only, and the next start denied nothing.",
        f"{_DENIED}:Feeds._keep",
        _keeps_nothing,
        "Z",
        [*_CHANGED, Step("feed is gone", wait=35.0), Step("kill", seconds=0.1)],
    ),
    (
        "a feed that changes and keeps its size",
        "A new list in the same file, with as many bytes as the one before, was not read.",
        f"{_DENIED}:_signature",
        _without_times,
        "Z",
        [*_CHANGED, Step("feed changes", wait=35.0, number=2)],
    ),
    (
        "a feed that a full disk did not take",
        "The list was not written again when the disk had room, and the alarm stayed.",
        f"{_DENIED}:ListFeed.must_be_kept",
        lambda _right: property(lambda _: False),
        "Z",
        [
            Step("feeds", wait=0.0),
            Step("disk", wait=3.3, number=errno.ENOSPC, seconds=30.0),
            Step("feed changes", wait=0.05, number=1),
            Step("rotate", wait=10.0),
        ],
    ),
)


class Feeds(Feature):
    """A block list in a file, and the daemon's own file with the last good list.

    Invariant Z: the kernel denies the addresses of the last good list, also after a restart without it. An
    alarm is active if the file is damaged, and another one if it does not exist.

    The list in force is known if the file is right. Otherwise it is the last one that the daemon has taken
    over, or an earlier one if the process ended before the disk took the last one.
    """

    kind = "feeds"
    steps: ClassVar[Kinds] = {
        "feed changes": times("feed changes", len(_LISTS)),
        "feed is damaged": times("feed is damaged", 1),
        "feed is gone": times("feed is gone", 1),
    }
    faults = _FAULTS

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        schedule = self.host.schedule
        self._path = self.host.folder / "feed.txt"
        self._list: Addresses | None = None  # the list in the file, None if there is no good one
        self._alarms = _GONE
        self._since, self._ahead = schedule.mono, schedule.ahead  # when the file changed
        self._taken: set[Addresses] = {_NONE}  # the lists of which one was taken over last
        self._kept: set[Addresses] = {_NONE}  # the lists of which one is in the daemon's own file
        self._is_unkept = False  # whether the disk has refused the last list

    def settings(self) -> Mapping[str, object]:
        """Return the table of the feed."""
        return {"feeds": [{"name": "office", "file": str(self._path)}]}

    def replaced(self) -> Sequence[Replaced]:
        """Return the function that writes the daemon's own file: it fails if the disk does."""
        return [(kept, "write", self._keep)]

    def _keep(self, path: Path, head: Mapping[str, object], lists: Iterable[Prefixes]) -> None:
        error = self.host.disk.error
        self._is_unkept = bool(error)
        if error:
            raise OSError(error, os.strerror(error))
        _WRITE(path, head, lists)

    def before_kill(self) -> None:
        """Record which list the process has now: the clock may be set before the next one starts."""
        self._follow()

    def on_end(self, before: Path, after: Path) -> None:
        """Copy the daemon's own file. The next process has no other list."""
        self._follow()
        self._taken, self._is_unkept, self._ahead = self._kept, False, self.host.schedule.ahead
        if (before / "feeds").is_dir():
            shutil.copytree(before / "feeds", after / "feeds")

    def _follow(self) -> None:
        """Record which lists the process may have taken over and kept by now."""
        if self._list is not None:
            schedule = self.host.schedule
            waited = schedule.mono - max(self._since, self.stage.process.began)
            # A clock that is set back by seconds makes the file seem new again, so the daemon waits longer.
            is_sure = waited > TAKEN_WITHIN and schedule.ahead == self._ahead
            self._taken = {self._list} if is_sure else self._taken | {self._list}
        if not self._is_unkept:
            self._kept = self._taken

    # -- the steps

    def feed_changes(self, step: Step) -> None:
        """Write another list into the file."""
        addresses = _LISTS[step.number - 1]
        self._replace(addresses, frozenset(addresses), _RIGHT)

    def feed_is_damaged(self, _: Step) -> None:
        """Write a list with a line that is no address."""
        self._replace(_DAMAGED, None, _REFUSED)

    def feed_is_gone(self, _: Step) -> None:
        """Remove the file."""
        self._replace((), None, _GONE)
        self._path.unlink()

    def _replace(self, lines: Sequence[str], addresses: Addresses | None, alarms: frozenset[str]) -> None:
        """Write lines into the file. ``addresses`` is the list, None if it is not good."""
        self._follow()
        schedule = self.host.schedule
        self._list, self._alarms = addresses, alarms
        self._since, self._ahead = schedule.mono, schedule.ahead
        self._path.write_text("".join(f"{line}\n" for line in lines), "ascii")
        os.utime(self._path, (schedule.wall, schedule.wall))

    # -- what must hold

    def violations(self) -> Iterator[Violation]:
        """Yield what the kernel denies by another list, and what the alarms do not report."""
        self._follow()
        lists = self._taken if self._list is None else {self._list}
        networks = self.host.kernel.lists.get(network_lists.EXTERNAL, frozenset())
        denied = frozenset(str(address) for network in networks for address in network)
        if denied not in lists:
            wanted = " or ".join(sorted(map(_named, lists)))
            yield Violation("Z", f"the feed denies {_named(denied)}; its last good list has {wanted}")
        active = map(str, (one.code for one in self.stage.process.side.common.alarms.active))
        alarms = frozenset(code for code in active if code.startswith("feed."))
        if alarms != self._alarms:
            yield Violation(
                "Z", f"the alarms about the feed are {_named(alarms)}, and should be {_named(self._alarms)}"
            )


def _named(texts: Iterable[str]) -> str:
    return ", ".join(sorted(texts)) or "nothing"
