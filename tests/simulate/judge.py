"""The judge of a simulated story: it forgives what a fault of the host has lost."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import inf

from tests.judge.oracle import Judge, View, Violation, host_of
from tests.judge.worlds import PLAIN

REPORTED_WITHIN = 60.0
"""Seconds within which every source has reported an attempt."""
HELD_WITHIN = 4.0
"""Seconds in which AMI has delivered a report, if nothing ends the connection (``story.py``)."""


class ForgivingJudge(Judge):
    """A judge that forgives attempts whose reports a fault has lost, and bans of phones that none has shown.

    If AMI does not report a login, only its list of contacts shows that a phone is there.
    """

    def __init__(self) -> None:
        super().__init__(PLAIN.trunks, PLAIN.claims)
        self._unknown: dict[str, float] = {}  # until when nothing may have shown the last login, by host
        self._twice = Counter[str]()  # attempts by source that may count twice

    def lose(self) -> None:
        """Forgive each attempt so far if it is not counted."""
        self._sees_all = False
        self._attempts = [replace(one, exception="lost") for one in self._attempts]
        self._attempts_of.clear()
        for one in self._attempts:
            self._attempts_of[one.source].append(one)
        for questions in self._questions.values():
            questions[:] = [replace(one, exception="lost") for one in questions]

    def on_unreported_login(self, source: str) -> None:
        """Record that AMI has not reported a login from an address."""
        self._unknown[host_of(source)] = inf

    def on_cut(self, now: float) -> None:
        """Record that AMI's latest reports have perhaps not arrived."""
        for one in self._sent:
            if one.credentials == "right" and now - one.time < HELD_WITHIN:
                self.on_unreported_login(one.source)

    def on_listed(self, addresses: Iterable[str], now: float) -> None:
        """Record that the daemon has read the contacts of some addresses, and knows these logins."""
        for host in map(host_of, addresses):
            if self._unknown.get(host) == inf:
                self._unknown[host] = now

    def _is_spared(self, address: str, now: float) -> bool:
        host = host_of(address)
        until = self._unknown.get(host, -inf)
        known = all(one.time >= until for one in self._attempts if host_of(one.source) == host)
        return known and super()._is_spared(address, now)

    def may_repeat(self, now: float) -> None:
        """Forgive each attempt around this time if it counts twice.

        If the clock was set, its reports may not match. If the host has lost its power, the database may have
        an earlier position of the log, so its lines are read again.
        """
        for one in self._attempts:
            self._twice[one.source] += now - one.time < REPORTED_WITHIN

    def _overcounted(self, view: View) -> Iterator[Violation]:
        counted = {one: number - self._twice[one] for one, number in view.counted.items()}
        return super()._overcounted(replace(view, counted=counted))
