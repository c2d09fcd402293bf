"""The questions of one manager connection: which phones and trunks this Asterisk has.

A round begins with ListCommands, which takes no right and names the actions that this user may use here. No
other is sent, since a refusal is a security event. Then each list is asked for, one after the other, and the
roster that follows is given out. A list that is refused, too long or does not come is said in its ``lacks``;
what it would have told is then not known, which is not the same as nobody.

Between the rounds Asterisk tells of changes by itself, where the user reads the class ``system``. By that it
also says that it has booted: before, what is not loaded yet has no phones, and nobody counts as away.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import structlog
from attrs import define, field

from ringfence.errors import SourceError
from ringfence.model import Contact, Roster, TrunkHost, printable
from ringfence.parse.roster import Entry, Item, Listed, Plan, Question, plan_of
from ringfence.parse.roster_live import BOOTED, Whereabouts

MOST_ENTRIES = 20_000
ANSWER_WITHIN = 10.0
EVERY = 60.0
"""So long (seconds) after a round the next one is due."""

STORM = 50
LOOK_AGAIN = 1.0
PATIENCE = 120
"""A round of many phones takes some 25 µs each, and what is told meanwhile waits behind it: where so many
events come in so many seconds, the round waits, and looks again so many times."""

RosterSink = Callable[[Roster], None]
ContactSink = Callable[[Contact], None]
Send = Callable[[dict[str, str]], "asyncio.Future[Any]"]
"""Sends an action, and gives the answer that is yet to come: what is in it, by any case of the name."""


def nobody(_: Roster | Contact) -> None:
    """Take what is told of phones and trunks, and do nothing with it."""


async def calm(events: Callable[[], int]) -> None:
    """Wait until few events come, or for long enough. ``events`` says how many came so far."""
    for _ in range(PATIENCE):
        before = events()
        await asyncio.sleep(LOOK_AGAIN)
        if events() - before < STORM:
            return


class AskError(SourceError):
    """A question was not answered as it should have been; the message names it."""


@define
class _Answer:
    """A list that is coming: its entries so far, and the sign that it is over."""

    question: Question
    over: asyncio.Future[None]
    entries: list[Entry] = field(factory=list)


class RosterTalk:
    """What is asked, heard and given out about phones and trunks of one Asterisk, connection by connection.

    ``token`` begins the ActionID of every question, and nobody else knows it. ``lacks`` is what could not be
    known in the last round and why, a line each.
    """

    def __init__(
        self, asterisk: str, username: str, roster: RosterSink = nobody, contact: ContactSink = nobody
    ) -> None:
        self.token = secrets.token_hex(8)
        self.lacks: tuple[str, ...] = ()
        self.due = asyncio.Event()
        """Set when a round is due before its time: Asterisk has loaded all that it has only now."""
        self._asterisk = asterisk
        self._username = username
        self._roster = roster
        self._contact = contact
        self._whereabouts = Whereabouts(asterisk)
        self._booted = False
        self._rounds = 0
        self._asked = 0
        self._answers: dict[str, _Answer] = {}
        self._log = structlog.get_logger().bind(asterisk=asterisk)

    def begin(self) -> None:
        """Forget what the connection before told: nobody knows what changed meanwhile."""
        self._whereabouts = Whereabouts(self._asterisk)
        self._booted, self._rounds = False, 0
        self._answers.clear()
        self.due.clear()

    def hear(self, item: Item) -> None:
        """Take an event; called where the connection is read, so it is quick."""
        if item.action:
            self._take(item)
        elif item.name == BOOTED:
            self._booted = True
            self.due.set()
        else:
            change = self._whereabouts.hear(item)
            if change is not None:
                self._contact(change)

    async def round(self, send: Send) -> None:
        """Ask for everything, and give the roster out."""
        lacks: list[str] = []
        plan = await self._plan(send, lacks)
        # What was loaded before these commands were listed is listed.
        booted = self._booted
        self.due.clear()
        self._rounds += 1
        if not booted and self._rounds > 1:
            lacks.append(f"phones that come and go are not told: {self._mend('read', 'system')}")
        contacts: tuple[Contact, ...] | None = None
        trunks: tuple[TrunkHost, ...] | None = None
        if plan is not None and not plan.refused:
            listed = await self._lists(send, plan.contacts, lacks)
            contacts = self._known(listed)
            if not booted or plan.unlisted or None in listed.values():
                # A roster says who is not there, too, and that is not known.
                for contact in contacts:
                    self._contact(contact)
                contacts = None
            trunks = _trunks(await self._lists(send, plan.trunks, lacks))
            if not booted and not trunks:
                trunks = None
        self._say(tuple(lacks))
        self._roster(Roster(self._asterisk, contacts=contacts, trunks=trunks, lacks=self.lacks))

    async def _plan(self, send: Send, lacks: list[str]) -> Plan | None:
        """Ask what may be asked; None where that is not answered."""
        try:
            commands = await self._ask(send, "ListCommands")
        except AskError as error:
            lacks.append(str(error))
            return None
        plan = plan_of(list(commands))
        if plan.refused:
            lacks.append(f"phones and trunks cannot be asked for: {self._mend('write', 'reporting')}")
        elif plan.unlisted:
            lacks.append(
                "this Asterisk does not list PJSIP's contacts to who has `reporting` (16.28, 18.14, 20 and "
                "later do): phones are known once they register"
            )
        return plan

    def _mend(self, key: str, name: str) -> str:
        return f"add {name} to `{key} =` of [{self._username}] in manager.conf"

    async def _lists(
        self, send: Send, questions: tuple[Question, ...], lacks: list[str]
    ) -> dict[Question, list[Entry] | None]:
        """Ask each question; None in place of the entries where the list did not come whole."""
        lists: dict[Question, list[Entry] | None] = {}
        for question in questions:
            try:
                lists[question] = await self._list(send, question)
            except AskError as error:
                lists[question] = None
                lacks.append(str(error))
        return lists

    async def _list(self, send: Send, question: Question) -> list[Entry]:
        answer = _Answer(question, asyncio.get_running_loop().create_future())
        key = self._next_id()
        self._answers[key] = answer
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                said = await self._ask(send, question.action, dict(question.headers), key)
                if not said.success:
                    why = str(said.get("Message", "no reason given"))
                    if question.empty and why == question.empty:
                        return []
                    raise AskError(f"{question.action} is refused ({printable(why[:80])})")
                await answer.over
        except TimeoutError:
            raise AskError(f"{question.action} was not answered in {ANSWER_WITHIN:.0f} s") from None
        finally:
            self._answers.pop(key, None)
            answer.over.cancel()
        return answer.entries

    async def _ask(
        self, send: Send, action: str, headers: dict[str, str] | None = None, key: str = ""
    ) -> Any:  # noqa: ANN401 - panoramisk has no types
        asked = {"Action": action, "ActionID": key or self._next_id(), **(headers or {})}
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await send(asked)
        except TimeoutError:
            raise AskError(f"{action} was not answered in {ANSWER_WITHIN:.0f} s") from None

    def _next_id(self) -> str:
        self._asked += 1
        return f"{self.token}-{self._asked}"

    def _take(self, item: Item) -> None:
        """Take an event of a list. One that comes too late belongs to none."""
        answer = self._answers.get(item.action)
        if answer is None or answer.over.done():
            return
        if item.headers.get("EventList") == "Complete":
            answer.over.set_result(None)
        elif item.name == answer.question.entry:
            answer.entries += answer.question.read(item.headers, self._asterisk)
            if len(answer.entries) > MOST_ENTRIES:
                what = f"{answer.question.action} lists more than {MOST_ENTRIES} entries"
                answer.over.set_exception(AskError(what))

    def _known(self, lists: dict[Question, list[Entry] | None]) -> tuple[Contact, ...]:
        came = {question.service: entries for question, entries in lists.items() if entries is not None}
        entries = [entry for entries in came.values() for entry in entries if isinstance(entry, Listed)]
        return self._whereabouts.take(entries, frozenset(came))

    def _say(self, lacks: tuple[str, ...]) -> None:
        """Note what is lacking, and say in the log what is new of it."""
        for lack in lacks:
            if lack not in self.lacks:
                self._log.warning("source.roster", lacks=lack)
        self.lacks = lacks


def _trunks(lists: dict[Question, list[Entry] | None]) -> tuple[TrunkHost, ...] | None:
    if None in lists.values():
        return None
    found = [entry for entries in lists.values() for entry in entries or ()]
    return tuple(dict.fromkeys(entry for entry in found if isinstance(entry, TrunkHost)))
