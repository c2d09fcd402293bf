"""Queries over one manager connection: the phones and trunks of this Asterisk.

A round begins with ListCommands, which needs no right and names the actions that this manager user may use.
No other action is sent, because Asterisk reports each refused action as a security event. Then each list is
requested, one after the other, and the resulting roster (all phones and trunks) is passed on. If a list is
refused, too long or missing, the roster's ``refused`` names it. Its contents are then unknown, not empty.

Between the rounds Asterisk itself reports changes, if the manager user reads the class ``system``. In this
class it also reports that its start is complete. Before that, a list may lack phones because a module is not
loaded yet, so no phone counts as gone.
"""

import asyncio
import secrets
from typing import Any, Protocol

import structlog
from attrs import define, field

from ringfence.errors import SourceError
from ringfence.parse.ami import AmiCounts
from ringfence.parse.roster import (
    BOOTED,
    RELOADED,
    ContactTracker,
    Entry,
    ListedContact,
    Question,
    RosterEvent,
    RosterPlan,
    means_empty,
    plan_questions,
    reloads_accounts,
)
from ringfence.values.friend import Contact, Roster, TrunkHost
from ringfence.values.text import printable

MOST_ENTRIES = 20_000
MOST_CHARACTERS = 32 * 2**20
"""The maximum number of characters in a list of phones or trunks from AMI. A contact has some 600."""
ANSWER_WITHIN = 10.0
EVERY = 60.0
"""The time (seconds) between two rounds of AMI queries about phones and trunks."""

STORM = 50
LOOK_AGAIN = 1.0
PATIENCE = 120
"""The maximum number of times that a round of queries is put off, each time by ``LOOK_AGAIN`` seconds.

A round takes some 25 µs for each phone, and delays events that come meanwhile. So it is put off if ``STORM``
or more events came in the last ``LOOK_AGAIN`` seconds.
"""


class Connection(Protocol):
    """A connection to AMI."""

    def request(self, headers: dict[str, str]) -> "asyncio.Future[Any]":
        """Send an AMI action with these headers, and return a future of the reply's headers.

        The name of a header can be looked up in any letter case.
        """


class AmiListener:
    """Handles what AMI reports besides security events. This class does nothing; subclasses do."""

    def on_roster(self, roster: Roster) -> None:
        """Handle a new list of all phones and trunks of an Asterisk."""

    def on_contact(self, contact: Contact) -> None:
        """Handle the change of a phone, which Asterisk reported between two full lists."""

    def on_reload(self) -> None:
        """Handle that Asterisk has read its accounts and trunks again."""

    def on_read(self) -> None:
        """Handle that AMI's events have been read up to a later time (``Reading.until``)."""


async def wait_for_quiet(counts: AmiCounts) -> None:
    """Wait until few events arrive, but not longer than ``PATIENCE`` times ``LOOK_AGAIN`` seconds.

    ``counts`` has the number of events so far.
    """
    for _ in range(PATIENCE):
        before = counts.events
        await asyncio.sleep(LOOK_AGAIN)
        if counts.events - before < STORM:
            return


class QueryError(SourceError):
    """A failed AMI query for a list: no reply in time, a refusal, or a list that is too long."""


@define
class _PendingList:
    """A list that AMI is sending: its entries so far, and a future that is done when it is complete.

    ``size`` is the number of characters of the entries so far.
    """

    question: Question
    done: asyncio.Future[None]
    entries: list[Entry] = field(factory=list)
    size: int = 0


class RosterQueries:
    """Asks one Asterisk's AMI for all phones and trunks; starts again after each new connection.

    A round sends all queries once. ``listener`` gets the result of each round, each change of a phone that
    Asterisk reports between rounds, and each reload of accounts and trunks. The attribute ``token`` begins
    the ActionID of every query, and is secret. ``refused`` has a line for each list that the last round could
    not get, with the reason.
    """

    def __init__(self, asterisk: str, username: str, listener: AmiListener) -> None:
        self.token = secrets.token_hex(8)
        self.refused: tuple[str, ...] = ()
        self.due = asyncio.Event()
        """Set when the next round is due early, because Asterisk has just finished its start, or a reload."""
        self._asterisk = asterisk
        self._username = username
        self._listener = listener
        self._tracker = ContactTracker(asterisk)
        self._booted = False
        self._rounds = 0
        self._sent = 0
        self._pending: dict[str, _PendingList] = {}
        self._log = structlog.get_logger().bind(asterisk=asterisk)

    def reset(self) -> None:
        """Forget the phones that the last AMI connection reported, because they may have changed since."""
        self._tracker = ContactTracker(self._asterisk)
        self._booted, self._rounds = False, 0
        self._pending.clear()
        self.due.clear()

    def on_event(self, event: RosterEvent) -> None:
        """Handle an AMI event about phones or trunks, without waiting: the connection is being read."""
        if event.action:
            self._on_list_event(event)
        elif event.name == BOOTED:
            self._booted = True
            self.due.set()
        elif event.name == RELOADED:
            if reloads_accounts(event):
                self.due.set()
                self._listener.on_reload()
        else:
            change = self._tracker.on_event(event)
            if change is not None:
                self._listener.on_contact(change)

    async def run_round(self, connection: Connection) -> None:
        """Request all lists of phones and trunks on ``connection``, and pass the result to the listener."""
        refused: list[str] = []
        plan = await self._plan(connection, refused)
        # Asterisk may finish its start while the lists are requested. Then the first lists may lack phones.
        # So only the state before the requests counts.
        booted = self._booted
        self.due.clear()
        self._tracker.begin_lists()
        self._rounds += 1
        if not booted and self._rounds > 1:
            refused.append(f"changes of phones are not reported; fix: {self._fix('read', 'system')}")
        contacts: tuple[Contact, ...] | None = None
        trunks: tuple[TrunkHost, ...] | None = None
        if plan is not None and not plan.refused:
            listed = await self._lists(connection, plan.contacts, refused)
            trunks = _trunks(await self._lists(connection, plan.trunks, refused))
            if not booted and not trunks:
                trunks = None
            contacts = self._contacts_of(listed)  # last, so the roster contradicts no event
            if not booted or plan.unlisted or None in listed.values():
                # These lists may be incomplete. A phone that is missing in a roster counts as gone.
                # So the contacts are passed on one by one, and not in the roster.
                for contact in contacts:
                    self._listener.on_contact(contact)
                contacts = None
        self._report(tuple(refused))
        self._listener.on_roster(
            Roster(self._asterisk, contacts=contacts, trunks=trunks, refused=self.refused)
        )

    async def _plan(self, connection: Connection, refused: list[str]) -> RosterPlan | None:
        """Ask AMI which lists of phones and trunks may be requested; return None without a reply.

        If lists are missing, a line with the reason or the fix is added to ``refused``.
        """
        try:
            commands = await self._ask(connection, "ListCommands")
        except QueryError as error:
            refused.append(str(error))
            return None
        plan = plan_questions(list(commands))
        if plan.refused:
            refused.append(f"phones and trunks cannot be listed; fix: {self._fix('write', 'reporting')}")
        elif plan.unlisted:
            refused.append(
                "this Asterisk does not list PJSIP's contacts to users with `reporting` (16.28, 18.14, 20 "
                "and later do): phones are known once they register"
            )
        return plan

    def _fix(self, key: str, name: str) -> str:
        return f"add {name} to `{key} =` of [{self._username}] in manager.conf"

    async def _lists(
        self, connection: Connection, questions: tuple[Question, ...], refused: list[str]
    ) -> dict[Question, list[Entry] | None]:
        """Request the list of each of ``questions``; return its entries, None for an incomplete list.

        The reasons for incomplete lists are added to ``refused``.
        """
        lists: dict[Question, list[Entry] | None] = {}
        for question in questions:
            try:
                lists[question] = await self._list(connection, question)
            except QueryError as error:
                lists[question] = None
                refused.append(str(error))
        return lists

    async def _list(self, connection: Connection, question: Question) -> list[Entry]:
        pending = _PendingList(question, asyncio.get_running_loop().create_future())
        key = self._next_id()
        self._pending[key] = pending
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                reply = await self._ask(connection, question.action, dict(question.headers), key)
                if not reply.success:
                    reason = str(reply.get("Message", ""))
                    if means_empty(reason):
                        return []
                    raise QueryError(f"{question.action} is refused ({reason_of(reason)})")
                await pending.done
        except TimeoutError:
            raise QueryError(f"{question.action} was not answered in {ANSWER_WITHIN:.0f} s") from None
        finally:
            self._pending.pop(key, None)
            pending.done.cancel()
        return pending.entries

    async def _ask(
        self, connection: Connection, action: str, headers: dict[str, str] | None = None, key: str = ""
    ) -> Any:  # noqa: ANN401 - panoramisk has no types
        asked = {"Action": action, "ActionID": key or self._next_id(), **(headers or {})}
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await connection.request(asked)
        except TimeoutError:
            raise QueryError(f"{action} was not answered in {ANSWER_WITHIN:.0f} s") from None

    def _next_id(self) -> str:
        self._sent += 1
        return f"{self.token}-{self._sent}"

    def _on_list_event(self, event: RosterEvent) -> None:
        """Add an event's entry to the list that AMI is sending, or end the list. Ignore a late event."""
        pending = self._pending.get(event.action)
        if pending is None or pending.done.done():
            return
        if event.headers.get("EventList") == "Complete":
            pending.done.set_result(None)
        elif event.name == pending.question.entry:
            pending.entries += pending.question.parse(event.headers, self._asterisk)
            pending.size += sum(map(len, event.headers.values()))
            if pending.size > MOST_CHARACTERS:
                detail = f"{pending.question.action} lists more than {MOST_CHARACTERS} characters"
                pending.done.set_exception(QueryError(detail))
            elif len(pending.entries) > MOST_ENTRIES:
                detail = f"{pending.question.action} lists more than {MOST_ENTRIES} entries"
                pending.done.set_exception(QueryError(detail))

    def _contacts_of(self, lists: dict[Question, list[Entry] | None]) -> tuple[Contact, ...]:
        complete = {question.service: entries for question, entries in lists.items() if entries is not None}
        entries = [
            entry for entries in complete.values() for entry in entries if isinstance(entry, ListedContact)
        ]
        return self._tracker.replace_lists(entries, frozenset(complete))

    def _report(self, refused: tuple[str, ...]) -> None:
        """Store ``refused``, a line for each list that could not be read, and log the new lines."""
        for text in refused:
            if text not in self.refused:
                self._log.warning("source.roster", lacks=text)
        self.refused = refused


def reason_of(message: str) -> str:
    """Return the first 80 characters of an error message of Asterisk, escaped, for people.

    White space around the message is left out. Return "no reason given" if nothing remains.
    """
    return printable(message.strip()[:80]) or "no reason given"


def _trunks(lists: dict[Question, list[Entry] | None]) -> tuple[TrunkHost, ...] | None:
    if None in lists.values():
        return None
    found = [entry for entries in lists.values() for entry in entries or ()]
    return tuple(dict.fromkeys(entry for entry in found if isinstance(entry, TrunkHost)))
