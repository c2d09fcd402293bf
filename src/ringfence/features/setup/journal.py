"""The journal of setup: what setup changed on this host, and the state before.

Each change has an entry, with copies of the old and the new content. The entry reaches the disk before the
change is made. So if setup is killed, the journal has every change that may have been made, and ``--undo``
compares each file with both copies. The folder belongs to root alone, because the copies contain secrets.
"""

import difflib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from attrs import asdict, evolve, frozen

from ringfence.errors import SetupError
from ringfence.host.file_changes import (
    MAX_BYTES,
    MOST_COMPARED,
    Change,
    FileChange,
    FileState,
    FolderChange,
    FolderState,
    changed_part,
    file_state,
    folder_state,
    remove_file,
    remove_folder,
    remove_rest,
    remove_tree,
    set_folder,
    sync_folder,
    write_file,
)
from ringfence.host.owned_files import exists

_NAME = "journal.json"
_LOCK = "lock"
_VERSION = 1
_MOST_BYTES = 8 * MAX_BYTES
"""The maximum size of a file of the journal: setup adds lines to files of up to ``MAX_BYTES``."""
_BY_HAND = "fix: restore the files by hand from the copies in {0}, then remove {0}"


@frozen
class Produced:
    """Files that other programs write because of setup, in one folder: the log, or the database.

    The names of these files begin with ``prefix``. ``names`` are the files with this prefix that were in the
    folder before setup. ``existed``: the folder itself existed before setup.
    """

    folder: Path
    prefix: str
    existed: bool
    names: tuple[str, ...]


@frozen
class Unit:
    """The state of a systemd unit before setup: its name, and whether it was enabled and active."""

    name: str
    enabled: bool
    active: bool


Registration: TypeAlias = tuple[str, str, str]
"""A registration of this host that a feature makes at another service: its kind, its name, and where."""


@frozen
class JournalRecord:
    """The content of the journal: what setup changed on this host, and the state before.

    ``changes`` are in the order in which they were made. ``produced`` and ``units`` have the state before the
    first run of setup. ``complete``: the last run was not interrupted. ``registrations`` are those that setup
    has made, or was about to make, in this order. ``kept`` are the numbers of changes and registrations up to
    the last run that was not interrupted; None if every run was interrupted.
    """

    changes: tuple[Change, ...] = ()
    produced: tuple[Produced, ...] = ()
    units: tuple[Unit, ...] = ()
    complete: bool = False
    registrations: tuple[Registration, ...] = ()
    kept: tuple[int, int] | None = None


class Journal:
    """The journal of setup's changes, in ``folder``. Only one process at a time has it open."""

    def __init__(self, folder: Path, record: JournalRecord) -> None:
        self._folder = folder
        self._record = record

    @property
    def record(self) -> JournalRecord:
        """The present content of the journal."""
        return self._record

    def begin(self, produced: Sequence[Produced], units: Sequence[Unit]) -> None:
        """Record that a run of setup starts, and the state before it: ``produced`` files, and ``units``.

        A state that an earlier run recorded stays, because it is the state before the first run.
        """
        known = {one.folder for one in self._record.produced}
        more = tuple(one for one in produced if one.folder not in known)
        self._write(
            evolve(
                self._record,
                produced=self._record.produced + more,
                units=self._record.units or tuple(units),
                complete=False,
            )
        )

    def add(self, change: Change) -> None:
        """Record a change that is about to be made."""
        self._write(evolve(self._record, changes=(*self._record.changes, change)))

    def add_registration(self, one: Registration) -> None:
        """Record a registration that is about to be made."""
        self._write(evolve(self._record, registrations=(*self._record.registrations, one)))

    def complete(self) -> None:
        """Record that the run of setup has ended without an interruption."""
        made = len(self._record.changes), len(self._record.registrations)
        self._write(evolve(self._record, complete=True, kept=made))

    def keep(self) -> None:
        """Keep only the changes and registrations up to the last run that was not interrupted.

        The caller has undone the later ones, so the last run counts as complete.
        """
        changes, registrations = self._record.kept or (0, 0)
        kept = self._record.changes[:changes], self._record.registrations[:registrations]
        last = len(self._record.changes)
        self._write(evolve(self._record, changes=kept[0], registrations=kept[1], complete=True))
        for number in range(changes, last):
            for kind in ("before", "after"):
                remove_file(self._folder / f"{number}.{kind}")

    def remove(self) -> None:
        """Remove the journal with its folder, after an undo."""
        remove_file(self._folder / _NAME)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._record = JournalRecord()

    def _write(self, record: JournalRecord) -> None:
        """Write ``record`` to the disk.

        If it has a new change, write the copies of the file's old and new content first, because the journal
        refers to them.
        """
        number = len(record.changes) - 1
        if len(record.changes) > len(self._record.changes):
            change = record.changes[-1]
            for kind, state in (("before", change.before), ("after", change.after)):
                if isinstance(state, FileState):
                    write_file(self._folder / f"{number}.{kind}", _own(state.content))
        text = json.dumps(_document(record), indent=1)
        write_file(self._folder / _NAME, _own(text.encode()))
        self._record = record


@contextmanager
def open_journal(folder: Path) -> Iterator[Journal]:
    """Open the journal for this process alone; raise SetupError if it cannot be used.

    If the journal is empty when the block ends, its folder is removed.
    """
    descriptor = _locked(folder)
    try:
        journal = Journal(folder, read_journal(folder))
        try:
            yield journal
        finally:
            if journal.record == JournalRecord():
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _locked(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise SetupError(f"{folder} must belong to root alone (mode 0700); fix: find out who made it")
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        with suppress(OSError):
            folder.rmdir()  # fails for the folder of an earlier run, which is not empty
        raise SetupError(f"cannot use {folder}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        sync_folder(folder.parent)
    except BlockingIOError:
        os.close(descriptor)
        raise SetupError("another `ringfence setup` is running") from None
    except OSError as error:
        if not exists(folder / _NAME):  # no run has changed anything, so nothing may stay
            shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)
        raise SetupError(f"cannot use {folder}: {error.strerror}") from None
    return descriptor


def read_journal(folder: Path) -> JournalRecord:
    """Return the content of the journal, without locking it; an empty record if there is no journal.

    Raise SetupError if the journal is damaged.
    """
    state = file_state(folder / _NAME, _MOST_BYTES)
    if state is None:
        return JournalRecord()
    try:
        document = json.loads(state.content)
        if document["version"] != _VERSION:
            raise SetupError(f"{folder / _NAME} was written by another version of ringfence")
        return JournalRecord(
            tuple(_change(folder, n, one) for n, one in enumerate(document["changes"])),
            tuple(
                Produced(Path(one["folder"]), one["prefix"], one["existed"], tuple(one["names"]))
                for one in document["produced"]
            ),
            tuple(Unit(**one) for one in document["units"]),
            document["complete"],
            tuple((kind, name, place) for kind, name, place in document["registrations"]),
            None if document["kept"] is None else (document["kept"][0], document["kept"][1]),
        )
    except (ValueError, LookupError, TypeError) as error:
        raise SetupError(f"{folder / _NAME} is damaged ({error}); {_BY_HAND.format(folder)}") from None


def _change(folder: Path, number: int, row: Mapping[str, Any]) -> Change:
    path, reason = Path(row["path"]), row["reason"]
    before, after = (None if row[kind] is None else _rights(row[kind]) for kind in ("before", "after"))
    if after is None:
        raise ValueError("a change without a result")
    if row["kind"] == "folder":
        return FolderChange(path, before, after, reason)
    old = None if before is None else _copy(folder / f"{number}.before", before)
    return FileChange(path, old, _copy(folder / f"{number}.after", after), reason)


def _copy(path: Path, rights: FolderState) -> FileState:
    kept = file_state(path, _MOST_BYTES)
    if kept is None:
        raise SetupError(f"{path} is missing, so setup cannot be undone; {_BY_HAND.format(path.parent)}")
    return FileState(kept.content, rights.mode, rights.uid, rights.gid)


def _rights(row: Mapping[str, int]) -> FolderState:
    return FolderState(row["mode"], row["uid"], row["gid"])


def _document(record: JournalRecord) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "complete": record.complete,
        "changes": [
            {
                "kind": "folder" if isinstance(change, FolderChange) else "file",
                "path": str(change.path),
                "reason": change.reason,
                "before": _row(change.before),
                "after": _row(change.after),
            }
            for change in record.changes
        ],
        "produced": [asdict(one) | {"folder": str(one.folder)} for one in record.produced],
        "units": [asdict(one) for one in record.units],
        "registrations": record.registrations,
        "kept": record.kept,
    }


def _row(state: FileState | FolderState | None) -> dict[str, int] | None:
    return None if state is None else {"mode": state.mode, "uid": state.uid, "gid": state.gid}


def _own(content: bytes) -> FileState:
    return FileState(content, 0o600, os.geteuid(), os.getegid())


# -- restores the files that setup changed. Changes that others made afterwards are never lost


KEPT = ".before-ringfence"
"""The suffix of a copy with the content that a file had before setup.

The copy is made if others have changed the file after setup, so that the file itself cannot be restored.
"""
_MAX_SEARCHED = 10_000_000
"""The maximum number of lines that the search for one changed part compares."""


def restore_files(record: JournalRecord) -> Iterator[str]:
    """Undo the changes in ``record``: restore every file, then every folder, the newest change first.

    Yield a line for each file that others have changed since, and for each file or folder that stays. After
    an interruption, call it again: files that are restored already are left alone. If files cannot be
    restored, restore all others, then raise SetupError with the reasons.
    """
    changes, failed = record.changes[::-1], list[str]()
    files = [one for one in changes if isinstance(one, FileChange)]
    for lines in chain(
        (_restore_file(one, files[number:]) for number, one in enumerate(files, 1)),
        map(_remove_produced, record.produced),
        (_restore_folder(one) for one in changes if isinstance(one, FolderChange)),
    ):
        try:
            yield from lines
        except SetupError as error:
            failed.append(str(error))
    if failed:
        raise SetupError("; ".join(failed))


def _restore_file(change: FileChange, older: Sequence[FileChange]) -> Iterator[str]:
    """Undo ``change`` of a file. ``older`` are the changes of all files that setup made before it."""
    path, before, after = change.path, change.before, change.after
    if not exists(path.parent):
        return  # others have removed the folder, or setup was killed before it made the folder
    remove_rest(path)
    now = file_state(path, max(MAX_BYTES, len(after.content)))
    if now is None:
        if before is not None:
            write_file(path, before)
    elif before is not None and now.content == before.content:
        if _rights_of(now) == _rights_of(after) != _rights_of(before):
            write_file(path, before)
    elif now.content == after.content:
        if before is None:
            remove_file(path)
        else:
            write_file(
                path, before if _rights_of(now) == _rights_of(after) else evolve(now, content=before.content)
            )
    elif not any(one.path == path and one.before and one.before.content == now.content for one in older):
        yield _merge(path, before, after, now)  # no earlier undo has restored an older change


def _merge(path: Path, before: FileState | None, after: FileState, now: FileState) -> str:
    """Remove setup's lines from a file that others have changed since. Return a text about what was done.

    If it is not certain which lines are setup's, the file stays, and the content before setup is saved in a
    file with the suffix KEPT. A file that setup made stays too.
    """
    rest = without_change(before.content if before is not None else b"", after.content, now.content)
    if rest is not None and before is not None:
        write_file(path, evolve(now, content=rest))
        return f"{path} was changed after setup: only the lines of setup are removed from it, the rest stays"
    if before is None:
        return f"{path} was made by setup and changed since: it stays; fix: remove it if it is not needed"
    kept = path.with_name(path.name + KEPT)
    write_file(kept, before)
    return f"{path} was changed after setup: it stays; what it was before is in {kept}; fix: compare them"


def without_change(before: bytes, after: bytes, now: bytes) -> bytes | None:
    """Return ``now`` without the change from ``before`` to ``after``.

    Return None if it is uncertain which lines of ``now`` are this change. They are certain if each part of
    ``after`` that differs from ``before`` is not blank, and occurs in ``now`` exactly once, as whole lines.
    Return None too if the comparison would take long.
    """
    lines, old, new = _lines(now), _lines(before), _lines(after)
    old, new = changed_part(old, new)
    if max(len(old), len(new)) > MOST_COMPARED:
        return None
    for tag, i, j, k, end in difflib.SequenceMatcher(None, new, old, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        part, original = new[i:j], old[k:end]
        if not b"".join(part).strip() or len(part) * len(lines) > _MAX_SEARCHED:
            return None
        found = [at for at in range(len(lines) - len(part) + 1) if lines[at : at + len(part)] == part]
        if len(found) != 1:
            return None
        rest = lines[found[0] + len(part) :]
        if rest and original and not original[-1].endswith(b"\n"):
            original = [*original[:-1], original[-1] + b"\n"]
        lines = [*lines[: found[0]], *original, *rest]
    return b"".join(lines)


def _lines(content: bytes) -> list[bytes]:
    """Return the lines of a file, each with its line end."""
    *whole, last = content.split(b"\n")
    return [line + b"\n" for line in whole] + ([last] if last else [])


def _remove_produced(produced: Produced) -> Iterator[str]:
    """Remove the files that other programs wrote because of setup; yield a line for what stays.

    Remove their folder too if it did not exist before setup, and if it is empty now.
    """
    if not exists(produced.folder):
        return
    try:
        remove_tree(
            produced.folder, lambda name: name.startswith(produced.prefix) and name not in produced.names
        )
    except OSError as error:
        yield f"files stay in {produced.folder}: {error.strerror}"
    if not produced.existed:
        yield from _remove_folder(produced.folder)


def _restore_folder(change: FolderChange) -> Iterator[str]:
    before, after, now = change.before, change.after, folder_state(change.path)
    try:
        remove_rest(change.path)
        if now is None:
            return
        if before is None:
            yield from _remove_folder(change.path)
        elif now != before and _is_between(now, before, after):
            set_folder(change.path, before)
    except OSError as error:
        raise SetupError(f"cannot restore {change.path}: {error.strerror}") from None


def _is_between(now: FolderState, before: FolderState, after: FolderState) -> bool:
    """Whether only setup changed a folder: its mode, user and group are each as before or as after setup.

    Some may be as before and others as after setup, because setup may have been killed between the changes.
    """
    return all(
        one in both
        for one, both in zip(
            _rights_of(now), zip(_rights_of(before), _rights_of(after), strict=True), strict=True
        )
    )


def _remove_folder(path: Path) -> Iterator[str]:
    try:
        remove_folder(path)
    except FileNotFoundError:
        return
    except OSError:
        yield f"{path} stays, because it is not empty"


def _rights_of(state: FileState | FolderState) -> tuple[int, int, int]:
    return state.mode, state.uid, state.gid
