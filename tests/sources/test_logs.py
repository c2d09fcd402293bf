"""The logs of one Asterisk: which files are found and read, when, and from which position."""

import asyncio
import os
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field
from structlog.testing import capture_logs
from tests.support.captures import FOLDER

from ringfence.parse.custom import Custom
from ringfence.sources import logs
from ringfence.sources.logs import LOG_PATHS, LogPlan, Logs, Positions, check_paths, choose
from ringfence.sources.state import State
from ringfence.values.event import SecurityEvent

CAPTURE = (FOLDER / "asterisk-22" / "unknown-account-register.security.log").read_bytes()
EVENTS = CAPTURE.count(b"SECURITY[")
NOBODY = 65_534


@define
class Recorder:
    """The running logs, the events that they passed on, and the stored positions."""

    logs: Logs = field(init=False)
    events: list[SecurityEvent] = field(factory=list)
    positions: dict[str, str] = field(factory=dict)

    def sink(self, events: Sequence[SecurityEvent], _: float) -> None:
        """Record events, as the sink."""
        self.events += events

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until ``true`` returns a true value."""
        async with asyncio.timeout(20):
            while not true():  # noqa: ASYNC110 - what is waited for knows of no event
                await asyncio.sleep(0.002)

    async def until_read(self, *wanted_paths: Path) -> None:
        """Wait until exactly these are read, and stand at their beginning."""
        wanted = {f"pbx/log:{path}": State.LISTENING for path in wanted_paths}
        await self.until(
            lambda: {str(source.id): source.condition.state for source in self.logs.sources} == wanted
        )


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check often."""
    monkeypatch.setattr(logs, "LOOK_EVERY", 0.01)


@pytest.fixture(name="paths")
def _paths(tmp_path: Path) -> tuple[Path, ...]:
    """Return the paths of logs, in a folder of the test's own; none exists."""
    for folder in {path.parent for path in LOG_PATHS}:
        (tmp_path / folder.name).mkdir()
    return tuple(tmp_path / path.parent.name / path.name for path in LOG_PATHS)


def listen(
    plan: LogPlan,
    then: Callable[[Recorder], Coroutine[Any, Any, None]],
    positions: dict[str, str] | None = None,
) -> Recorder:
    """Read the logs of ``plan`` while ``then`` runs."""
    recorder = Recorder(positions=positions if positions is not None else {})

    async def session() -> None:
        positions = Positions()
        positions.latest = recorder.positions
        recorder.logs = Logs(plan, recorder.sink, positions)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(recorder.logs.run())
            await then(recorder)
            assert not task.done()
            task.cancel()

    with capture_logs():
        asyncio.run(session())
    return recorder


def append(path: Path, data: bytes = CAPTURE) -> None:
    """Write at a log's end."""
    with path.open("ab") as file:
        file.write(data)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Run the block as a user without rights, if the tests run as root."""
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
    """If ringfence has a channel, only that is read; full is read if neither messages file exists."""
    folder = Path("/var/log")

    assert choose([folder / name for name in there]) == tuple(folder / name for name in chosen)


def test_a_check_distinguishes_readable_and_missing_files() -> None:
    """A file without permission differs from a missing one, also if its folder is closed."""
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
            look = check_paths(
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


def test_named_files_are_read_and_no_others(paths: tuple[Path, ...], tmp_path: Path) -> None:
    """With paths nothing is searched; a path that is named twice is read once."""
    own, named = paths[0], tmp_path / "named"
    for path in (own, named):
        path.touch()

    async def then(recorder: Recorder) -> None:
        await recorder.until_read(named)
        append(own)
        append(named)
        await recorder.until(lambda: len(recorder.events) >= EVENTS)

    plan = LogPlan("pbx", paths=(named, named), candidates=paths)
    assert len(listen(plan, then).events) == EVENTS


def test_no_paths_are_no_logs(paths: tuple[Path, ...]) -> None:
    """An empty list switches logs off: there is nothing to do, and nothing is missing."""
    paths[0].touch()
    none = Logs(LogPlan("pbx", paths=(), candidates=paths), lambda *_: None)
    asyncio.run(none.run())

    assert none.sources == ()


def test_a_missing_log_is_reported_until_it_comes(paths: tuple[Path, ...]) -> None:
    """Without any file the logs are one waiting source with the fix; a new file needs no restart."""
    security = paths[2]

    async def then(recorder: Recorder) -> None:
        await recorder.until(lambda: recorder.logs.condition.state is State.WAITING)
        [missing] = recorder.logs.sources
        assert str(missing.id) == "pbx/log"
        assert "contrib/asterisk/ringfence.logger.conf" in missing.condition.detail
        assert (missing.counts.events, missing.alarms) == (0, {})
        append(security)
        await recorder.until_read(security)
        await recorder.until(lambda: len(recorder.events) == EVENTS)

    listen(LogPlan("pbx", candidates=paths), then)


def test_a_log_that_may_not_be_read_any_more_is_not_waited_for() -> None:
    """After a restart it is reported as unreadable; one that was never read is only missing."""
    with tempfile.TemporaryDirectory() as name:  # tmp_path is closed to other users
        folder = Path(name)
        folder.chmod(0o755)
        paths = tuple(folder / log for log in ("security", "messages", "messages.log", "full"))
        (path := paths[1]).touch()
        plan = LogPlan("pbx", candidates=paths)

        async def read(recorder: Recorder) -> None:
            await recorder.until_read(path)

        remembered = listen(plan, read).positions
        path.chmod(0o000)

        async def wait(recorder: Recorder, state: State) -> None:
            await recorder.until(lambda: recorder.logs.condition.state is state)

        with as_nobody():
            listen(plan, partial(wait, state=State.UNREADABLE), remembered)
            listen(plan, partial(wait, state=State.WAITING))


def test_lines_from_before_the_first_start_are_old(paths: tuple[Path, ...]) -> None:
    """A file that exists at the very first start is read from its end."""
    append(paths[0])

    async def then(recorder: Recorder) -> None:
        await recorder.until_read(paths[0])
        append(paths[0])
        await recorder.until(lambda: len(recorder.events) >= EVENTS)

    assert len(listen(LogPlan("pbx", candidates=paths), then).events) == EVENTS


def test_a_restart_continues_at_its_position(paths: tuple[Path, ...]) -> None:
    """Lines that were written meanwhile are read at the next start, and nothing twice."""
    paths[0].touch()

    async def read(recorder: Recorder) -> None:
        await recorder.until_read(paths[0])

    remembered = listen(LogPlan("pbx", candidates=paths), read).positions
    append(paths[0])

    async def then(recorder: Recorder) -> None:
        await recorder.until(lambda: recorder.events)

    assert len(listen(LogPlan("pbx", candidates=paths), then, remembered).events) == EVENTS
    assert listen(LogPlan("pbx", candidates=paths), read, remembered).events == []


def test_the_own_channel_replaces_the_others(paths: tuple[Path, ...]) -> None:
    """When Asterisk gets ringfence's channel, that one is read and the others no longer."""
    own, _, _, messages, _, _ = paths
    messages.touch()

    async def then(recorder: Recorder) -> None:
        await recorder.until_read(messages)
        append(own)
        await recorder.until_read(own)
        await recorder.until(lambda: len(recorder.events) == EVENTS)
        append(messages)
        append(own)
        await recorder.until(lambda: len(recorder.events) >= 2 * EVENTS)

    assert len(listen(LogPlan("pbx", candidates=paths), then).events) == 2 * EVENTS


def test_a_rotation_is_no_reason_to_read_another(paths: tuple[Path, ...]) -> None:
    """While the own channel is renamed and not yet back, no other file is read instead."""
    own, _, _, messages, _, _ = paths
    for path in (own, messages):
        path.touch()

    async def then(recorder: Recorder) -> None:
        await recorder.until_read(own)
        own.rename(f"{own}.0")
        await asyncio.sleep(0.1)
        assert [str(source.id) for source in recorder.logs.sources] == [f"pbx/log:{own}"]
        append(messages)
        append(own)
        await recorder.until(lambda: len(recorder.events) >= EVENTS)
        await recorder.until_read(own)

    assert len(listen(LogPlan("pbx", candidates=paths), then).events) == EVENTS


def test_a_removed_own_channel_is_replaced_by_the_others(
    paths: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the own channel is missing for longer than a rotation takes, others are read until it is back."""
    monkeypatch.setattr(logs, "KEEP", 0.1)
    own, _, _, messages, _, _ = paths
    for path in (own, messages):
        path.touch()

    async def then(recorder: Recorder) -> None:
        await recorder.until_read(own)
        own.unlink()
        await recorder.until_read(messages)
        append(messages)
        await recorder.until(lambda: len(recorder.events) >= EVENTS)
        own.touch()
        await recorder.until_read(own)

    assert len(listen(LogPlan("pbx", candidates=paths), then).events) == EVENTS


def test_a_removed_file_that_no_other_replaces_is_kept(
    paths: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asterisk may still write to a removed file, so it is read until another one replaces it."""
    monkeypatch.setattr(logs, "KEEP", 0.05)
    _, _, security, messages, _, _ = paths
    for path in (security, messages):
        path.touch()

    async def then(recorder: Recorder) -> None:
        await recorder.until_read(security, messages)
        security.unlink()
        await asyncio.sleep(0.2)
        assert {str(source.id) for source in recorder.logs.sources} == {
            f"pbx/log:{path}" for path in (security, messages)
        }

    listen(LogPlan("pbx", candidates=paths), then)


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_one_file_of_two_names_is_read_once(
    paths: tuple[Path, ...], link: Callable[[Path, Path], None]
) -> None:
    """If messages.log is a link to messages, its lines are passed on once."""
    _, _, _, messages, newer, _ = paths
    messages.touch()
    link(messages, newer)

    async def then(recorder: Recorder) -> None:
        await recorder.until_read(messages)
        append(newer)
        await recorder.until(lambda: len(recorder.events) >= EVENTS)

    assert len(listen(LogPlan("pbx", candidates=paths), then).events) == EVENTS


def test_own_patterns_are_read(paths: tuple[Path, ...]) -> None:
    """A pattern of the administrator makes events of the lines that it fits, named after it."""
    paths[0].touch()
    custom = Custom.compile("guest {any} from {address} refused", name="guests")

    async def then(recorder: Recorder) -> None:
        await recorder.until_read(paths[0])
        append(
            paths[0],
            b"[2026-11-20 06:05:02.730] NOTICE[1][C-00000001] Ext. s: guest 100 from 198.18.1.9 refused\n",
        )
        await recorder.until(lambda: recorder.events)

    [event] = listen(evolve(LogPlan("pbx", candidates=paths), customs=(custom,)), then).events
    assert (str(event.remote.address), event.acl_name) == ("198.18.1.9", "guests")
