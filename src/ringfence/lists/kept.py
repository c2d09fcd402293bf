"""Networks in a file of this host: they survive a restart, and are read without their source.

The file has a line of JSON, the *head*, and then the packed networks of each list. Root uses it with the
rights of its folder's owner, as it uses the database.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from ringfence.errors import StoreError
from ringfence.file_rights import open_regular
from ringfence.lists.prefixes import Prefixes
from ringfence.store.owner import owner_of

_MAX_HEAD = 1 << 20  # bytes
_MAX_CONTENT = 128 << 20


def opened(path: Path, *, follow: bool = False) -> BufferedReader:
    """Open a regular file; raise OSError. A symbolic link is refused, unless ``follow`` is true.

    Do not follow links in folders into which another user writes: root or the daemon would read their target.
    """
    return os.fdopen(open_regular(path, follow=follow), "rb")


def write(path: Path, head: Mapping[str, object], lists: Iterable[Prefixes]) -> None:
    """Write ``head`` and lists of networks into a file; raise OSError. A crash leaves the old or new file."""
    parts = [part for networks in lists for part in networks.packed]
    digest = hashlib.sha256(b"".join(parts)).hexdigest()
    whole_head = {**head, "sizes": [len(part) for part in parts], "digest": digest}
    partial_path = path.with_name(f"{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with _as_owner(path):
        path.parent.mkdir(mode=0o750, exist_ok=True)
        partial_path.unlink(missing_ok=True)
        try:
            with os.fdopen(os.open(partial_path, flags, 0o640), "wb") as file:
                file.write(json.dumps(whole_head).encode() + b"\n")
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            partial_path.replace(path)
        except OSError:  # the disk may be full
            partial_path.unlink(missing_ok=True)
            raise


def forget(path: Path) -> None:
    """Remove the file, if there is one; raise OSError."""
    with _as_owner(path):
        path.unlink(missing_ok=True)


def read(path: Path) -> tuple[Mapping[str, Any], list[Prefixes]]:
    """Return head and lists that :func:`write` wrote; {} and [] if the file is missing or damaged."""
    try:
        with _as_owner(path), opened(path) as file:
            head = json.loads(file.readline(_MAX_HEAD))
            content = file.read(_MAX_CONTENT)
        if hashlib.sha256(content).hexdigest() != head["digest"]:
            return {}, []
        parts = (content[begin:end] for begin, end in pairwise(accumulate(head["sizes"], initial=0)))
        return head, [Prefixes.unpacked(*both) for both in zip(parts, parts, strict=True)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}, []


@contextmanager
def _as_owner(path: Path) -> Iterator[None]:
    """Use ``path`` with the rights of its folder's owner; raise OSError if root may not.

    If there is no folder yet, they are those of the owner of the folder around it.
    """
    try:
        try:
            owner = owner_of(path)
        except FileNotFoundError:
            owner = owner_of(path.parent)
        with owner.acting():
            yield
    except StoreError as error:
        raise OSError(errno.EPERM, str(error)) from error


def identity_of(path: Path) -> object:
    """Return a value that changes if the file is changed or replaced, or can no longer be read."""
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    return status.st_ino, status.st_size, status.st_mtime_ns
