"""Phones that are gone, as a part of the daemon: what Asterisk reports of contacts, and the alarm.

Asterisk's lists of contacts, and the changes between them, wait in a queue until the next look: so a fault
here cannot disturb the connection to the manager interface.

A phone is not gone because nobody sees it. While the manager interface of an Asterisk is not connected, or
sends no complete list, no further phone of it is listed, and its absence counts from the end of that time. An
Asterisk that restarted may have forgotten its contacts, so phones have an hour more to register again. In
outage mode, when all phones fail at once, none is listed either: that has an alarm of its own.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from math import inf

from ringfence.alarm_codes import Alarm
from ringfence.config.schema import Settings
from ringfence.features.phones.absence import AT_ONCE, BREAK, MOST, Absences, GoneNetwork, SavedPhone
from ringfence.features.phones.alarms import PhonesAlarmCode
from ringfence.features.phones.settings import PhonesSettings
from ringfence.features.phones.table import PhonesTable
from ringfence.guard.feature import Fact, Feature, Given, Number, Section
from ringfence.guard.firewall_side import FirewallSide
from ringfence.guard.process import every
from ringfence.guard.source_manager import SourceManager
from ringfence.plurals import counted
from ringfence.sources.roster import AmiListener
from ringfence.values.friend import Contact, Roster
from ringfence.values.network import format_network
from ringfence.values.text import printable, rfc3339

LOOK_EVERY = 5.0
SAVE_EVERY, SAVE_CHANGED = 600.0, 60.0
"""Seconds between two writes of all phones to the database, in general and if a lasting phone changed.

One phone with a bad network comes and goes every few seconds, and each write contains all phones.
"""
STALE = 300.0
"""Seconds without a complete list of contacts after which they are unknown. A list may wait two minutes."""
AGAIN = 3_600.0
"""Minimum seconds after which the alarm begins again, so that further phones are notified too."""
MOST_NETWORKS, MOST_NAMES = 20, 10
"""The maximum numbers of networks in the text of the alarm, and of accounts of each."""


class GonePhones(Feature, AmiListener):
    """Follows the contacts of each Asterisk, and keeps the alarm about phones that are gone.

    ``after`` is the setting ``gone_after`` in seconds.
    """

    def __init__(self, side: FirewallSide, sources: SourceManager, after: float) -> None:
        self._asterisks = {pbx.name for pbx in side.kernel.wanted_rules.settings.asterisk}
        self._clock = side.common.clock
        self._alarms = side.common.alarms
        self._table = PhonesTable(side.common.store.connection)
        self._best_effort = side.common.store.best_effort
        self._friends = side.exempt.friends.friends
        self._sources = sources
        self._after = after
        self._absences = Absences()
        self._waiting: deque[tuple[Roster | Contact, float | None]] = deque(maxlen=MOST)
        self._connected: dict[str, float | None] = {}  # by Asterisk, since when it was at its last list
        self._complete: dict[str, float] = {}  # by Asterisk, when its last complete list was handled
        self._gone: list[GoneNetwork] = []
        self._text = ""
        self._begun, self._announced = -inf, 0
        self._saved, self._saved_at = 0, -inf  # the number of changes at the last save, and its time

    # -- what Asterisk reports

    def on_roster(self, roster: Roster) -> None:
        """Queue a list of all contacts, with the time since which its manager interface is connected."""
        if roster.contacts is not None:
            self._waiting.append((roster, self._sources.listening.get(roster.asterisk)))

    def on_contact(self, contact: Contact) -> None:
        """Queue a change of a contact."""
        self._waiting.append((contact, None))

    # -- the daemon's calls

    def begin(self) -> None:
        """Restore the phones that the database has from an earlier run."""
        now = self._clock.mono()
        self._absences.restore(self._best_effort.read(self._table.all, []), now, self._clock.wall())
        self._absences.keep_only(self._asterisks)
        self._list_gone(inf, now)

    def jobs(self) -> list[Coroutine[None, None, None]]:
        """Return the coroutine that handles what Asterisk reported, and looks for phones that are gone."""
        return [every(LOOK_EVERY, "phones", self.look, self._alarms)]

    def alarms(self) -> list[Alarm]:
        """Return the alarm about the phones that are gone, if there are any."""
        return [Alarm(PhonesAlarmCode.PHONE_GONE, "", self._text)] if self._text else []

    def section(self) -> Section:
        """Return the numbers of phones that are registered, and of those that are gone."""
        gone = sum(len(one.accounts) for one in self._gone)
        return Section(
            [
                Number(
                    "phones_registered", "Contacts at which Asterisk reaches phones.", len(self._absences)
                ),
                Number("phones_gone", "Phones that are gone (alarm phone.gone).", gone),
            ]
        )

    def on_fact(self, fact: Fact) -> None:
        """If the fact is a new configuration, forget the phones of Asterisks that it does not name."""
        if isinstance(fact, Settings):
            self._asterisks = {pbx.name for pbx in fact.asterisk}
            self._absences.keep_only(self._asterisks)

    def finish(self) -> None:
        """Queue all phones for the database, because the daemon stops."""
        saved = self._absences.save(self._clock.mono(), self._clock.wall())
        self._write([phone for some in saved for phone in some])

    # -- periodic work

    async def look(self) -> None:
        """Handle what Asterisk reported since the last call, and find the phones that are gone now."""
        changes = 0
        while self._waiting:
            report, since = self._waiting.popleft()
            if report.asterisk not in self._asterisks:  # it was reported before the configuration changed
                continue
            if isinstance(report, Contact):
                self._absences.on_contact(report, self._clock.mono())
                changes += 1
                if changes % AT_ONCE == 0:
                    await asyncio.sleep(0)  # all phones of a large PBX may change at once
            else:
                await self._on_list(report, since)
        now = self._clock.mono()
        for asterisk in self._absences.asterisks:
            complete = self._complete.get(asterisk, -inf)
            unseen = asterisk not in self._sources.listening or now - complete >= STALE
            if unseen or self._friends.outage_mode:
                self._absences.postpone(asterisk, now)
        self._absences.purge(now)
        self._list_gone(self._after, now)
        changed = self._absences.changes != self._saved
        if now - self._saved_at >= (SAVE_CHANGED if changed else SAVE_EVERY):
            await self._save(now)

    async def _on_list(self, roster: Roster, since: float | None) -> None:
        """Handle a complete list of contacts. The event loop runs other work between its parts."""
        asterisk, now = roster.asterisk, self._clock.mono()
        for _ in self._absences.replace(asterisk, roster.contacts or (), now):
            await asyncio.sleep(0)
        self._absences.keep_only(self._asterisks)  # the configuration may have changed meanwhile
        if since is None or since != self._connected.get(asterisk):
            self._absences.postpone(asterisk, now + BREAK)
        self._connected[asterisk], self._complete[asterisk] = since, now

    def _list_gone(self, after: float, now: float) -> None:
        """Find the phones that are gone; begin the alarm again if there are further ones."""
        before, self._gone = self._gone, self._absences.list_gone(after, now)
        if self._gone != before:
            offset = self._clock.wall() - self._clock.mono()
            self._text = text_of(self._gone, offset)
        further = self._absences.listed != self._announced
        if further and (not before or now - self._begun >= AGAIN):
            # It may be active with an older text, or dismissed. The daemon activates it within a second.
            self._alarms.clear(PhonesAlarmCode.PHONE_GONE, "")
            self._begun, self._announced = now, self._absences.listed

    async def _save(self, now: float) -> None:
        """Queue all phones for the database. The event loop runs other work between the parts."""
        self._saved, self._saved_at = self._absences.changes, now
        phones: list[SavedPhone] = []
        for some in self._absences.save(now, self._clock.wall()):
            phones += some
            await asyncio.sleep(0)
        self._write(phones)

    def _write(self, phones: list[SavedPhone]) -> None:
        self._best_effort.write(self._table.replace, phones, key="phones")


def build(given: Given) -> GonePhones | None:
    """Return the part of the daemon that looks for phones that are gone; None if it is off."""
    settings = given.side.kernel.wanted_rules.settings.of(PhonesSettings)
    if settings.gone_after is None:
        return None
    made = GonePhones(given.side, given.sources, settings.gone_after)
    given.sources.listeners.append(made)
    return made


def text_of(networks: list[GoneNetwork], offset: float) -> str:
    """Return the text of the alarm about the phones that are gone; "" if there are none.

    ``offset`` is the difference of the wall clock and the clock of the times.
    """
    parts = [_part(one, offset) for one in networks[:MOST_NETWORKS]]
    if more := networks[MOST_NETWORKS:]:
        number = sum(len(one.accounts) for one in more)
        parts.append(f"{counted(number, 'phone')} of {counted(len(more), 'other network')}")
    return "; ".join(parts)


def _part(one: GoneNetwork, offset: float) -> str:
    number, names = len(one.accounts), [printable(name) for name in one.accounts[:MOST_NAMES]]
    if number > MOST_NAMES:
        names.append(f"{number - MOST_NAMES} more")
    line = ""
    if one.left_there:
        phones = f"{number} of {number + one.left_there} phones"
    elif number == 1:
        phones = "the only phone"
    else:
        phones, line = f"all {number} phones", ": it is the line or the power there"
    return (
        f"{phones} of {format_network(one.network)} since {rfc3339(one.since + offset)} "
        f"({', '.join(names)}){line}"
    )
