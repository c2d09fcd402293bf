"""The logs of one Asterisk: which files are found and read, when they come and go, and from where on."""

import asyncio
import os
import tempfile
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field
from structlog.testing import capture_logs
from tests.support.captures import FOLDER

from ringfence.model import SecurityEvent
from ringfence.parse.custom import Custom
from ringfence.sources import logs
from ringfence.sources.logs import PLACES, LogPlan, Logs, choose, look_at
from ringfence.sources.state import State

CAPTURE = (FOLDER / "asterisk-22" / "unknown-account-register.security.log").read_bytes()
EVENTS = CAPTURE.count(b"SECURITY[")
NOBODY = 65_534


@define
class Heard:
    """The logs at work, what they handed on, and what they want remembered."""

    logs: Logs = field(init=False)
    events: list[SecurityEvent] = field(factory=list)
    places: dict[str, str] = field(factory=dict)

    def take(self, events: Sequence[SecurityEvent], _: float) -> None:
        """Be the sink."""
        self.events += events

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for something to become true."""
        async with asyncio.timeout(20):
            while not true():  # noqa: ASYNC110 - what is waited for knows of no event
                await asyncio.sleep(0.002)

    async def until_read(self, *paths: Path) -> None:
        """Wait until these and no others are read, and stand where they begin."""
        wanted = {f"pbx/log:{path}": State.LISTENING for path in paths}
        await self.until(
            lambda: {str(source.id): source.condition.state for source in self.logs.sources} == wanted
        )


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often."""
    monkeypatch.setattr(logs, "LOOK_EVERY", 0.01)


@pytest.fixture(name="places")
def _places(tmp_path: Path) -> tuple[Path, ...]:
    """Give the places that there are, in a folder of the test's own; nothing is there."""
    for folder in {place.parent for place in PLACES}:
        (tmp_path / folder.name).mkdir()
    return tuple(tmp_path / place.parent.name / place.name for place in PLACES)


def listen(
    plan: LogPlan,
    then: Callable[[Heard], Coroutine[Any, Any, None]],
    places: dict[str, str] | None = None,
    after: Collection[asyncio.Task[None]] = (),
) -> Heard:
    """Have the logs of ``plan`` read while ``then`` runs."""
    heard = Heard(places=places if places is not None else {})

    async def session() -> None:
        heard.logs = Logs(plan, heard.take, lambda: heard.places, heard.places.__setitem__, after)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(heard.logs.run())
            await then(heard)
            assert not task.done()
            task.cancel()

    with capture_logs():
        asyncio.run(session())
    return heard


def append(path: Path, data: bytes = CAPTURE) -> None:
    """Write at a log's end."""
    with path.open("ab") as file:
        file.write(data)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user without rights while the block runs, where the tests are run by root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


# -- which files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        ((), ()),
        (("ringfence/ringfence",), ("ringfence/ringfence",)),
        (("asterisk/ringfence", "asterisk/messages", "asterisk/full"), ("asterisk/ringfence",)),
        (
            ("ringfence/ringfence", "asterisk/ringfence", "asterisk/security"),
            ("ringfence/ringfence", "asterisk/ringfence"),
        ),
        (
            ("asterisk/security", "asterisk/messages", "asterisk/full"),
            ("asterisk/security", "asterisk/messages"),
        ),
        (("asterisk/messages", "asterisk/messages.log"), ("asterisk/messages", "asterisk/messages.log")),
        (("asterisk/security", "asterisk/full"), ("asterisk/security", "asterisk/full")),
        (("asterisk/full",), ("asterisk/full",)),
    ],
)
def test_the_own_channel_is_read_alone_and_full_last(there: Sequence[str], chosen: Sequence[str]) -> None:
    """Where ringfence has a channel nothing else is read; full is read where neither messages is there."""
    folder = Path("/var/log")

    assert choose([folder / name for name in there]) == tuple(folder / name for name in chosen)


def test_a_look_tells_what_may_be_read() -> None:
    """A file that may not be read is told from one that is not there, also where its folder is closed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file, mode in (("open", 0o644), ("private", 0o600)):
            (folder / file).touch()
            (folder / file).chmod(mode)
        (folder / "private").chmod(0o000)
        (folder / "closed").mkdir(mode=0o000)
        about = (folder / "open").stat()
        with as_nobody():
            look = look_at(
                [
                    folder / "open",
                    folder / "private",
                    folder / "closed" / "log",
                    folder / "absent",
                    folder / "open/x",
                ]
            )
        (folder / "closed").chmod(0o700)

        assert look.readable == {folder / "open": (about.st_dev, about.st_ino)}
        assert look.forbidden == (folder / "private", folder / "closed" / "log")
        assert look.absent == (folder / "absent", folder / "open/x")


# -- reading ------------------------------------------------------------------------------------------------


def test_named_files_are_read_and_no_others(places: tuple[Path, ...], tmp_path: Path) -> None:
    """With paths nothing is looked for; a path that is named twice is read once."""
    own, named = places[0], tmp_path / "named"
    for path in (own, named):
        path.touch()

    async def then(heard: Heard) -> None:
        await heard.until_read(named)
        append(own)
        append(named)
        await heard.until(lambda: len(heard.events) >= EVENTS)

    plan = LogPlan("pbx", paths=(named, named), places=places)
    assert len(listen(plan, then).events) == EVENTS


def test_no_paths_are_no_logs(places: tuple[Path, ...]) -> None:
    """An empty list switches logs off, whatever is there: there is nothing to do, and nothing is missed."""
    places[0].touch()
    none = Logs(LogPlan("pbx", paths=(), places=places), lambda *_: None)
    asyncio.run(none.run())

    assert none.sources == ()


def test_what_is_missed_is_said_until_it_comes(places: tuple[Path, ...]) -> None:
    """With nothing there the logs are one source that waits, with the mend; a new file is read by itself."""
    security = places[2]

    async def then(heard: Heard) -> None:
        await heard.until(lambda: heard.logs.condition.state is State.WAITING)
        [missing] = heard.logs.sources
        assert str(missing.id) == "pbx/log"
        assert "contrib/asterisk/ringfence.logger.conf" in missing.condition.detail
        assert (missing.counts.events, missing.alarms) == (0, {})
        append(security)
        await heard.until_read(security)
        await heard.until(lambda: len(heard.events) == EVENTS)

    listen(LogPlan("pbx", places=places), then)


def test_what_was_there_at_the_first_start_is_old(places: tuple[Path, ...]) -> None:
    """A file that is there at the very first start is read from its end."""
    append(places[0])

    async def then(heard: Heard) -> None:
        await heard.until_read(places[0])
        append(places[0])
        await heard.until(lambda: len(heard.events) >= EVENTS)

    assert len(listen(LogPlan("pbx", places=places), then).events) == EVENTS


def test_a_restart_goes_on_where_it_was(places: tuple[Path, ...]) -> None:
    """What was written while nobody read is read at the next start, and nothing twice."""
    places[0].touch()

    async def read(heard: Heard) -> None:
        await heard.until_read(places[0])

    remembered = listen(LogPlan("pbx", places=places), read).places
    append(places[0])

    async def then(heard: Heard) -> None:
        await heard.until(lambda: heard.events)

    assert len(listen(LogPlan("pbx", places=places), then, remembered).events) == EVENTS
    assert listen(LogPlan("pbx", places=places), read, remembered).events == []


def test_the_own_channel_takes_the_others_place(places: tuple[Path, ...]) -> None:
    """When Asterisk is given ringfence's channel, that one is read and the others no longer."""
    own, _, _, messages, _, _ = places
    messages.touch()

    async def then(heard: Heard) -> None:
        await heard.until_read(messages)
        append(own)
        await heard.until_read(own)
        await heard.until(lambda: len(heard.events) == EVENTS)
        append(messages)
        append(own)
        await heard.until(lambda: len(heard.events) >= 2 * EVENTS)

    assert len(listen(LogPlan("pbx", places=places), then).events) == 2 * EVENTS


def test_a_rotation_is_no_reason_to_read_another(places: tuple[Path, ...]) -> None:
    """While the own channel is renamed and not yet there again, nothing else is taken for it."""
    own, _, _, messages, _, _ = places
    for path in (own, messages):
        path.touch()

    async def then(heard: Heard) -> None:
        await heard.until_read(own)
        own.rename(f"{own}.0")
        await asyncio.sleep(0.1)
        assert [str(source.id) for source in heard.logs.sources] == [f"pbx/log:{own}"]
        append(messages)
        append(own)
        await heard.until(lambda: len(heard.events) >= EVENTS)
        await heard.until_read(own)

    assert len(listen(LogPlan("pbx", places=places), then).events) == EVENTS


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_one_file_of_two_names_is_read_once(
    places: tuple[Path, ...], link: Callable[[Path, Path], None]
) -> None:
    """Where messages.log is a link to messages, its lines are told once."""
    _, _, _, messages, newer, _ = places
    messages.touch()
    link(messages, newer)

    async def then(heard: Heard) -> None:
        await heard.until_read(messages)
        append(newer)
        await heard.until(lambda: len(heard.events) >= EVENTS)

    assert len(listen(LogPlan("pbx", places=places), then).events) == EVENTS


def test_own_patterns_are_read(places: tuple[Path, ...]) -> None:
    """A pattern of the administrator's makes events of the lines it fits, named after it."""
    places[0].touch()
    custom = Custom.compile("guest {any} from {address} refused", name="guests")

    async def then(heard: Heard) -> None:
        await heard.until_read(places[0])
        append(
            places[0],
            b"[2026-11-20 06:05:02.730] NOTICE[1][C-00000001] Ext. s: guest 100 from 198.18.1.9 refused\n",
        )
        await heard.until(lambda: heard.events)

    [event] = listen(evolve(LogPlan("pbx", places=places), customs=(custom,)), then).events
    assert (str(event.remote.address), event.acl_name) == ("198.18.1.9", "guests")


def test_who_reads_the_same_logs_still_is_waited_for(places: tuple[Path, ...]) -> None:
    """After a reload the new reader begins where the old one ended, and not before it has."""
    append(places[0])
    begun: list[bool] = []

    async def session() -> None:
        gate = asyncio.Event()

        async def old() -> None:
            await gate.wait()

        async with asyncio.TaskGroup() as group:
            before = group.create_task(old())
            new = Logs(LogPlan("pbx", places=places), lambda *_: None, after=[before])
            task = group.create_task(new.run())
            await asyncio.sleep(0.1)
            begun.append(str(new.sources[0].id) != "pbx/log")
            gate.set()
            async with asyncio.timeout(20):
                while str(new.sources[0].id) == "pbx/log":  # noqa: ASYNC110 - it knows of no event
                    await asyncio.sleep(0.002)
            task.cancel()

    with capture_logs():
        asyncio.run(session())
    assert begun == [False]
