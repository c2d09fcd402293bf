"""Faults that the daemon had, or would have without one line. Each is put into it, and must show.

A fault shows in the story of a seed, or in a story of its own.
"""
# ruff: noqa: ANN401 - a replaced function may be any

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from attrs import evolve
from tests.judge.asterisk import Act
from tests.judge.fault import Fault
from tests.simulate.put_back import (
    ASKER,
    GUESS,
    GUESSER,
    LATER,
    OTHER_PHONE,
    PHONE,
    VICTIM,
    Row,
    does_nothing,
    guesses,
)
from tests.simulate.step import Step
from tests.simulate.story import FEATURES, story

from ringfence.ban_facts import News
from ringfence.ledger import key_of, network_of
from ringfence.store.file import errors
from ringfence.values.ban import BanEnd


def _returns_first(_right: Any) -> Any:
    return lambda first, *_: first


async def _nothing_at_once(*_: Any) -> str:
    return ""


def _no_step(right: Any) -> Any:
    def follow_clock(records: Any, found: Any, offset: float, boot: str, now: float) -> None:
        records.record_clock(offset, boot, 0.0, now)

    return follow_clock


def _no_shift(_right: Any) -> Any:
    def follow_clock(self: Any, offset: float) -> float:
        self.ledger.offset = offset
        return 0.0

    return follow_clock


def _forgets_failed(right: Any) -> Any:
    def write_kept(self: Any) -> None:
        try:
            right(self)
        finally:
            self._kept.clear()

    return write_kept


def _forgets_restored(right: Any) -> Any:
    def refuse(self: Any, ban: Any, error: Any, news: News) -> Generator[Any, Any, None]:
        if news is not News.KNOWN:
            yield from right(self, ban, error, news)

    return refuse


def _forgets_refused(_right: Any) -> Any:
    def refuse(*_: Any) -> Generator[Any, Any, None]:
        yield from ()

    return refuse


def _by_key(_right: Any) -> Any:
    def unbanned_keys(found: Any, ended: Any, began: float, now: float) -> set[int]:
        return {key for network, scope, _ in ended if (key := key_of(network, scope)) in found}

    return unbanned_keys


def _keeps_turn(right: Any) -> Any:
    def read_turn(self: Any, connection: Any) -> bool:
        turns: list[tuple[float, bool]] = []
        self.on_turn = lambda now, *, more: turns.append((now, more))
        try:
            more: bool = right(self, connection)
        finally:
            del self.on_turn
        for now, waits in turns:
            self.on_turn(now, more=waits)
        return more

    return read_turn


@contextmanager
def _stays_open(connection: Any) -> Iterator[Any]:
    """Run a transaction that stays open if its end fails."""
    with errors(connection.path), connection._turn, connection._owner.acting():
        connection._writer.execute("BEGIN IMMEDIATE")
        yield connection._writer.execute
        connection._writer.execute("COMMIT")


def _only_early(right: Any) -> Any:
    def read(self: Any, known: Any, look: int, now: float) -> Any:
        found, find, get = right(self, known, look, now), self._enforcer.backend.find, self._ledger.get
        early = [
            key
            for key in found.mistimed
            if (one := find(*network_of(key))) is not None and get(key).expires - now > one.timeout
        ]
        return evolve(found, mistimed=early)

    return read


def _forgets_others(right: Any) -> Any:
    def unban_with_retry(self: Any, keys: Any, how: BanEnd = BanEnd.REMOVED) -> Generator[Any, Any, None]:
        self._failed_unbans.clear()
        yield from right(self, keys, how)

    return unban_with_retry


def _clears_its_own(right: Any) -> Any:
    def check(self: Any, conditions: Any, now: float) -> None:
        alarms, own = self._alarms, vars(self).setdefault("_own", set())
        self._alarms = SimpleNamespace(
            activate=lambda code, name, text: (own.add(name), alarms.activate(code, name, text)),
            clear=lambda code, name: alarms.clear(code, name) if name in own else None,
        )
        try:
            right(self, conditions, now)
        finally:
            self._alarms = alarms

    return check


def _sees_without_rules(_right: Any) -> Any:
    def sees_all(self: Any) -> bool:
        opened = self._enforcer.opened
        return self.is_listening and opened is not None and not opened.wire

    return property(sees_all)


def _of_any_age(right: Any) -> Any:
    def would_have_been_seen(self: Any, event: Any, now: float) -> bool:
        recent = evolve(event, time=now + self.ahead)
        return bool(right(self, recent, now))

    return would_have_been_seen


_BOOK, _RECORDS = "ringfence.bans.book:Book", "ringfence.store.bans:Records"

_ROWS: Sequence[Row] = (
    (
        "a clock that is set while no daemon runs",
        "The bans of the database ended too early or too late after the next start.",
        "ringfence.bans.restore:follow_clock",
        _no_step,
        "R",
        [Step("ban", wait=3.3, number=1), Step("kill", wait=3.0, seconds=0.1, set=300.0)],
    ),
    (
        "a clock that is set while the daemon runs",
        "The recorded bans ended earlier or later than those of the kernel.",
        f"{_BOOK}.follow_clock",
        _no_shift,
        "R",
        [Step("ban", wait=3.3, number=1), Step("clock", set=300.0)],
    ),
    (
        "a start under a wrong clock",
        "A ban that the kernel still had began again with its full length.",
        "ringfence.bans.restore:_as_in_kernel",
        _returns_first,
        "T",
        [
            Step("ban", wait=3.3, number=1),
            Step("clock", set=-7_200.0),
            Step("reboot", wait=0.0, seconds=1.0),
            Step("kill", wait=20.0, seconds=0.1),
        ],
    ),
    (
        "a clock that is set back over the end of a ban",
        "The ban had no recorded end, and began again.",
        f"{_RECORDS}.expire",
        does_nothing,
        "E",
        [
            *guesses(Act("forges a guess", GUESSER, VICTIM)),
            Step("clock", wait=620.0, set=-4.9),
            *[Step("clock", set=-4.9)] * 29,
        ],
    ),
    (
        "a write that fails",
        "A ban that could not be written to a full disk was never recorded.",
        "ringfence.store.writer:BestEffort.write_kept",
        _forgets_failed,
        "E",
        4,
    ),
    (
        "a failed write that nothing follows",
        "What a full disk did not take was written only before the next ban.",
        "ringfence.store.writer:BestEffort.retry",
        does_nothing,
        "E",
        [
            Step("disk", wait=3.3, number=28, seconds=20.0),
            Step("ban", wait=0.05, number=1),
            Step("rotate", wait=3.0),
        ],
    ),
    (
        "a transaction that stays open",
        "A commit that failed let every later write fail.",
        "tests.simulate.process:_TRANSACTION",
        lambda _right: _stays_open,
        "E",
        [
            Step("disk", wait=3.3, number=28, seconds=2.0),
            Step("ban", wait=0.05, number=1),
            Step("rotate", wait=3.0),
        ],
    ),
    (
        "an answer before the record",
        "`ban` and `unban` ended before the database had the change, and a crash undid it.",
        "ringfence.store.writer:BestEffort.recorded",
        lambda _right: _nothing_at_once,
        "U",
        [
            Step("ban", wait=3.3, number=1),
            Step("disk", number=28, seconds=20.0),
            Step("unban", number=1),
            Step("kill", seconds=0.1),
        ],
    ),
    (
        "an unban before a crash",
        "The next start adopted a ban that was recorded as removed.",
        "ringfence.bans.restore:unbanned_keys",
        lambda _right: lambda *_: set(),
        "U",
        [
            Step("ban", number=1),
            Step("unban", wait=1.3, number=1),
            Step("kill", wait=0.0, number=2, seconds=0.1),
        ],
    ),
    (
        "a ban that follows an unban",
        "A ban whose record was lost ended at the next start, because an earlier one had been removed.",
        "ringfence.bans.restore:unbanned_keys",
        _by_key,
        "K",
        [
            Step("ban", wait=3.3, number=1),
            Step("unban", number=1),
            Step("disk", wait=5.0, number=28, seconds=30.0),
            Step("ban", number=1),
            Step("kill", wait=2.0, seconds=0.1),
        ],
    ),
    (
        "a ban during an unban",
        "A ban that began while an unban waited for the disk was removed, and stayed recorded.",
        "ringfence.bans.unban:_begun_by",
        lambda _right: lambda _ledger, keys, _when: [*keys],
        "R",
        [Step("ban", wait=3.3, number=1), Step("unban", number=1), Step("ban", wait=0.0, number=1), LATER],
    ),
    (
        "an unban of a refused ban",
        "A ban that the kernel had refused was placed after its unban.",
        "ringfence.ledger:Ledger.discard_pending",
        lambda _right: lambda *_: False,
        "U",
        [
            Step("refuse", wait=3.3, number=1),
            Step("ban", wait=0.05, number=1),
            Step("unban", wait=0.05, number=1),
            Step("rotate", wait=0.3),
        ],
    ),
    (
        "a refused removal",
        "A ban that the kernel did not remove was recorded as ended.",
        f"{_RECORDS}.resume",
        does_nothing,
        "E",
        [
            Step("ban", wait=3.3, number=1),
            Step("refuse", wait=0.05, number=1),
            Step("unban", wait=0.05, number=1),
            LATER,
        ],
    ),
    (
        "two refused removals",
        "A second removal that the kernel refused ended the tries of the first.",
        f"{_BOOK}.unban_with_retry",
        _forgets_others,
        "P",
        [
            *guesses(Act("forges a guess", GUESSER, PHONE)),
            Step("refuse", number=6),
            Step("act", Act("logs in", PHONE, transport="TCP"), wait=0.05),
            Step("act", Act("logs in", OTHER_PHONE), wait=0.3),
            LATER,
        ],
    ),
    (
        "a refused ban",
        "A ban that a full set refused was not tried again.",
        f"{_BOOK}._refuse",
        _forgets_refused,
        "C",
        [
            *guesses(GUESS, 4),
            Step("refuse", wait=0.05, number=1),
            Step("act", GUESS, wait=0.05),
            Step("rotate", wait=0.2),
        ],
    ),
    (
        "a restored ban that the kernel refuses",
        "The ban was forgotten, but stayed recorded.",
        f"{_BOOK}._refuse",
        _forgets_restored,
        "E",
        [
            Step("ban", number=1),
            Step("damage", wait=2.3),
            Step("damage", wait=0.25),
            Step("refuse", wait=0.2, number=1),
            LATER,
        ],
    ),
    (
        "`on` with writes that wait",
        "A ban that the database lacked was not restored, and recorded later.",
        "ringfence.bans.enforcer:Enforcer.switch_on",
        lambda right: lambda self, **_: right(self),
        "E",
        [
            Step("disk", wait=1.0, number=28, seconds=20.0),
            Step("ban", number=1),
            Step("off", wait=3.0),
            Step("on", wait=3.0),
            Step("rotate", wait=3.0),
        ],
    ),
    (
        "`on` that the kernel refuses",
        "Enforcement that could not be switched on stayed off.",
        "ringfence.guard.firewall_manager:FirewallManager.retry_switch",
        does_nothing,
        "E",
        [
            Step("ban", wait=3.3, number=1),
            Step("off"),
            Step("refuse", number=1),
            Step("on", wait=0.05),
            LATER,
        ],
    ),
    (
        "removed sets",
        "If another program removed the sets, the bans in them were gone.",
        "ringfence.bans.reconcile:Reconciler._apply_differences",
        lambda _right: _nothing_at_once,
        "E",
        [Step("ban", wait=3.3, number=1), Step("damage")],
    ),
    (
        "a ban that the kernel keeps too long",
        "Only bans that the kernel would end too early were renewed.",
        "ringfence.bans.reconcile:Reconciler._read",
        _only_early,
        "T",
        [Step("ban", wait=3.3, number=1), Step("clock", set=4.0), Step("clock", set=4.0)],
    ),
    (
        "an alarm after the repair",
        "An alarm stayed when its cause was gone.",
        "ringfence.alarms:Alarms.clear",
        does_nothing,
        "S",
        [
            Step("disk", wait=3.3, number=28, seconds=5.0),
            Step("ban", wait=0.05, number=1),
            Step("rotate", wait=6.0),
        ],
    ),
    (
        "a source that is back after a restart",
        "The alarm of the process before stayed.",
        "ringfence.guard.source_manager:SourceWatchdog.check",
        _clears_its_own,
        "S",
        [Step("cut", wait=3.3, seconds=20.0), Step("kill", wait=10.0, seconds=15.0)],
    ),
    (
        "a wire that fails",
        "The packets that were read before the error counted in the next session, a second time.",
        "ringfence.sources.nflog:NflogSource._read_turn",
        _keeps_turn,
        "C",
        [
            Step("act", Act("guesses", GUESSER), wait=3.3),
            Step("break", wait=0.0),
            Step("act", Act("asks", ASKER, account="900"), wait=35.0),
        ],
    ),
    (
        "lines while enforcement is off",
        "True lines of the log were called forged, because the kernel had copied no challenge.",
        "ringfence.guard.source_manager:WireReader.sees_all",
        _sees_without_rules,
        "F",
        [
            Step("off", number=1),
            Step("act", Act("logs in", PHONE, transport="TCP"), wait=35.0),
            Step("act", Act("hides", ASKER, other=PHONE, order=12864, late=0.5)),
            Step("act", Act("logs in", PHONE, transport="TCP", order=200), wait=3.0),
        ],
    ),
    (
        "questions that count late",
        "A true line of the log was called forged, because its challenge was forgotten.",
        "ringfence.detect.confirmation:Confirmation.would_have_been_seen",
        _of_any_age,
        "F",
        770,
    ),
    (
        "an entry that no table has",
        "An address that was added to the deny list was not denied.",
        "ringfence.store.tables:EntryTable.add",
        does_nothing,
        "N",
        [Step("deny", wait=3.3, number=1), LATER],
    ),
    *(row for feature in FEATURES for row in feature.faults),
)
FAULTS: Mapping[str, tuple[Fault, str, int, Sequence[Step]]] = {
    name: (
        Fault(name, sentence, where, change, ()),
        invariant,
        *((shown, story(shown)) if isinstance(shown, int) else (0, shown)),
    )
    for name, sentence, where, change, invariant, shown in _ROWS
}
"""The faults by name, each with the invariant that it breaks, and the seed and the story that show that.

They need no acts of a world.
"""
