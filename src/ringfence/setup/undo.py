"""Restoring the files that setup changed. Changes that somebody else made afterwards are never destroyed."""

import difflib
import shutil
from collections.abc import Iterator
from pathlib import Path

from attrs import evolve

from ringfence.errors import SetupError
from ringfence.setup.changes import (
    FileChange,
    FileState,
    FolderChange,
    FolderState,
    file_state,
    folder_state,
    remove_file,
    remove_folder,
    set_folder,
    temporary,
    write_file,
)
from ringfence.setup.journal import Produced, Record

KEPT = ".before-ringfence"
"""The end of the name of an original that is kept beside a file which somebody else changed."""


def restore_files(record: Record) -> Iterator[str]:
    """Restore every file and folder, the newest change first; yield a line for each that was changed since.

    A second call after an interruption continues, because a restored file is like its original.
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
    if not path.parent.is_dir():
        return  # nothing is left of it, or setup was killed before it made the folder
    remove_file(temporary(path))
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
    """Remove the lines of setup from a file that was changed since; return a line about the result."""
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
    """Return ``now`` without the change from ``before`` to ``after``; None if that is not certain.

    It is certain if each changed part, with all its lines, is in ``now`` exactly once.
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
    """Return the lines, each with its end."""
    *whole, last = content.split(b"\n")
    return [line + b"\n" for line in whole] + ([last] if last else [])


def _remove_produced(produced: Produced) -> Iterator[str]:
    """Remove the files that programs wrote because of setup, and the folder if it is new and empty."""
    if not produced.folder.is_dir():
        return
    for path in sorted(produced.folder.iterdir()):
        if path.name.startswith(produced.prefix) and path.name not in produced.names:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                remove_file(path)
    if not produced.existed:
        yield from _remove_folder(produced.folder)


def _restore_folder(change: FolderChange) -> Iterator[str]:
    before, after, now = change.before, change.after, folder_state(change.path)
    try:
        remove_folder(temporary(change.path))
        if now is None:
            return
        if before is None:
            yield from _remove_folder(change.path)
        elif now != before and _is_between(now, before, after):
            set_folder(change.path, before)
    except OSError as error:
        raise SetupError(f"cannot restore {change.path}: {error.strerror}") from None


def _is_between(now: FolderState, before: FolderState, after: FolderState) -> bool:
    """Whether nobody else changed a folder: setup may have been killed between its owners and its mode."""
    return all(
        one in both
        for one, both in zip(_rights(now), zip(_rights(before), _rights(after), strict=True), strict=True)
    )


def _remove_folder(path: Path) -> Iterator[str]:
    try:
        path.rmdir()
    except FileNotFoundError:
        return
    except OSError:
        yield f"{path} stays, because it is not empty"


def _rights(state: FileState | FolderState) -> tuple[int, int, int]:
    return state.mode, state.uid, state.gid
