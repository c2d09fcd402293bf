"""Networks in a file of this host: they survive a restart, and are read without their source.

The file has a line of JSON, the *head*, and then the packed networks of each list.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from io import BufferedReader
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from ringfence.lists.prefixes import Prefixes

_MAX_HEAD = 1 << 20  # bytes
_MAX_CONTENT = 128 << 20


def opened(path: Path, *, follow: bool = False) -> BufferedReader:
    """Open a regular file; raise OSError. A symbolic link is refused, unless ``follow`` is true.

    Do not follow links in folders into which another user writes: root or the daemon would read their target.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "is not a regular file")
    return os.fdopen(descriptor, "rb")


def write(path: Path, head: Mapping[str, object], lists: Iterable[Prefixes]) -> None:
    """Write ``head`` and lists of networks into a file; raise OSError. A crash leaves the old or new file."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    parts = [part for networks in lists for part in networks.packed]
    digest = hashlib.sha256(b"".join(parts)).hexdigest()
    whole_head = {**head, "sizes": [len(part) for part in parts], "digest": digest}
    partial_path = path.with_name(f"{path.name}.new")
    partial_path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(partial_path, flags, 0o640), "wb") as file:
        file.write(json.dumps(whole_head).encode() + b"\n")
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    partial_path.replace(path)


def read(path: Path) -> tuple[Mapping[str, Any], list[Prefixes]]:
    """Return head and lists that :func:`write` wrote; {} and [] if the file is missing or damaged."""
    try:
        with opened(path) as file:  # root reads it too (a command without the daemon), so follow no link
            head = json.loads(file.readline(_MAX_HEAD))
            content = file.read(_MAX_CONTENT)
        if hashlib.sha256(content).hexdigest() != head["digest"]:
            return {}, []
        parts = (content[begin:end] for begin, end in pairwise(accumulate(head["sizes"], initial=0)))
        return head, [Prefixes.unpacked(*both) for both in zip(parts, parts, strict=True)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}, []


def identity_of(path: Path) -> object:
    """Return a value that changes if the file is changed or replaced, or can no longer be read."""
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    return status.st_ino, status.st_size, status.st_mtime_ns
