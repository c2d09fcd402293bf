"""Restores the files that setup changed. Changes that others made afterwards are never lost."""

import difflib
from collections.abc import Iterator
from pathlib import Path

from attrs import evolve

from ringfence.errors import SetupError
from ringfence.host.owned_files import exists
from ringfence.setup.changes import (
    FileChange,
    FileState,
    FolderChange,
    FolderState,
    file_state,
    folder_state,
    remove_file,
    remove_folder,
    remove_rest,
    remove_tree,
    set_folder,
    write_file,
)
from ringfence.setup.journal import JournalRecord, Produced

KEPT = ".before-ringfence"
"""The suffix of a copy with the content that a file had before setup.

The copy is made if others have changed the file after setup, so that the file itself cannot be restored.
"""


def restore_files(record: JournalRecord) -> Iterator[str]:
    """Restore every file, then every folder; of both, the newest change first.

    Yield a line for each file that others have changed since, and for each file or folder that stays. After
    an interruption, call it again: files that are restored already are left alone.
    """
    for change in reversed(record.changes):
        if isinstance(change, FileChange):
            yield from _restore_file(change)
    for produced in record.produced:
        yield from _remove_produced(produced)
    for change in reversed(record.changes):
        if isinstance(change, FolderChange):
            yield from _restore_folder(change)


def _restore_file(change: FileChange) -> Iterator[str]:
    path, before, after = change.path, change.before, change.after
    if not exists(path.parent):
        return  # others have removed the folder, or setup was killed before it made the folder
    remove_rest(path)
    now = file_state(path)
    if now is None:
        if before is not None:
            write_file(path, before)
    elif before is not None and now.content == before.content:
        if _rights(now) == _rights(after) != _rights(before):
            write_file(path, before)
    elif now.content == after.content:
        if before is None:
            remove_file(path)
        else:
            write_file(
                path, before if _rights(now) == _rights(after) else evolve(now, content=before.content)
            )
    else:
        yield _merge(path, before, after, now)


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
    """
    lines, old, new = _lines(now), _lines(before), _lines(after)
    for tag, i, j, k, end in difflib.SequenceMatcher(None, new, old, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        part, original = new[i:j], old[k:end]
        found = [at for at in range(len(lines) - len(part) + 1) if lines[at : at + len(part)] == part]
        if len(found) != 1 or not b"".join(part).strip():
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
    """Remove the files that other programs wrote because of setup.

    Remove their folder too if it did not exist before setup. If it is not empty, yield a line instead.
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
        for one, both in zip(_rights(now), zip(_rights(before), _rights(after), strict=True), strict=True)
    )


def _remove_folder(path: Path) -> Iterator[str]:
    try:
        remove_folder(path)
    except FileNotFoundError:
        return
    except OSError:
        yield f"{path} stays, because it is not empty"


def _rights(state: FileState | FolderState) -> tuple[int, int, int]:
    return state.mode, state.uid, state.gid
