"""The switch of enforcement: held at once beside the control socket, recorded in the database later."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ringfence.errors import StoreError
from ringfence.store.database import Store
from ringfence.store.owner import FileOwner
from ringfence.store.switch import hold


@pytest.fixture(name="runtime")
def _runtime(tmp_path: Path) -> Path:
    """Return the folder of the control socket."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o750)
    return folder


@pytest.fixture(name="waiting")
def _waiting() -> list[Callable[[], object]]:
    """Return the writes that the writer's thread has not done yet."""
    return []


@pytest.fixture(name="store")
def _store(path: Path, runtime: Path, waiting: list[Callable[[], object]]) -> Iterator[Store]:
    """Yield a store whose writes wait, as those of the daemon."""
    with Store.open_or_memory(path, waiting.append, runtime=runtime) as store:
        yield store


def test_a_command_does_not_wait_for_the_database(
    store: Store, runtime: Path, waiting: list[Callable[[], object]]
) -> None:
    """While another thread writes, `off` holds at once in a file; it is recorded afterwards."""
    with store.connection.transaction():
        command = threading.Thread(target=store.switch.set, args=(True,), daemon=True)
        command.start()
        command.join(10.0)
        done = not command.is_alive()
        held = (store.switch.is_off, store.switch.is_unrecorded, [file.name for file in runtime.iterdir()])
    assert (done, held) == (True, (True, True, ["switched-off"]))

    waiting.pop()()
    assert (store.switch.is_off, store.state.switched_off(), store.switch.is_unrecorded) == (
        True,
        True,
        False,
    )
    assert (list(runtime.iterdir()), store.best_effort.lacks) == ([], "")


def test_a_command_during_the_record_of_an_earlier_one(
    store: Store,
    waiting: list[Callable[[], object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The later command holds at once, although the earlier one is only then recorded."""
    record, commands = store.state.set_switched_off, iter([False])

    def slow(value: bool) -> None:  # noqa: FBT001 - as the method
        record(value)
        for later in commands:
            command = threading.Thread(target=store.switch.set, args=(later,), daemon=True)
            command.start()
            command.join(10.0)
            assert not command.is_alive()

    monkeypatch.setattr(store.state, "set_switched_off", slow)
    store.switch.set(True)
    while waiting:
        waiting.pop(0)()

    assert (store.switch.is_off, store.state.switched_off(), store.switch.is_unrecorded) == (
        False,
        False,
        False,
    )


def test_without_a_folder_memory_holds_the_switch(path: Path) -> None:
    """Without a folder of its own, the daemon has the command in memory until it is recorded."""
    waiting: list[Callable[[], object]] = []
    with Store.open_or_memory(path, waiting.append) as store:
        store.switch.set(True)
        assert (store.switch.is_off, store.switch.is_unrecorded) == (True, True)
        waiting.pop()()
        assert (store.state.switched_off(), store.switch.is_unrecorded) == (True, False)


def _no_right(_: object, **__: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def _foreign(_: Path) -> FileOwner:
    raise StoreError("user 1000 owns the folder")


@pytest.mark.parametrize(
    ("name", "fault"), [("pathlib.Path.unlink", _no_right), ("ringfence.store.switch.owner_of", _foreign)]
)
def test_a_file_that_cannot_be_removed(
    store: Store,
    runtime: Path,
    waiting: list[Callable[[], object]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    fault: Callable[..., object],
) -> None:
    """The old file would win at the next start, so `on` holds but counts as not recorded until it is gone."""
    hold(runtime, value=True)
    with monkeypatch.context() as broken, capture_logs():
        broken.setattr(name, fault)
        store.switch.set(False)
        waiting.pop()()
        assert (store.switch.is_off, store.state.switched_off()) == (False, False)
        assert store.switch.is_unrecorded is True
        assert f"{runtime}/switched-off cannot be removed" in store.best_effort.lacks
        assert store.best_effort.waiting == 0  # it blocks no later write

    store.switch.set(False)
    waiting.pop()()
    assert (store.best_effort.lacks, store.switch.is_unrecorded, list(runtime.iterdir())) == ("", False, [])
