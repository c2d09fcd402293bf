"""The files of the fetcher: each list, and beside it what is known about it for the next request.

The daemon reads both. It trusts neither of them.
"""

import json
import os
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from ringfence.parse.feeds import MAX_CURSOR, STATE_SUFFIX

MAX_STATE = 4_096  # bytes
MAX_VALIDATOR = 512
"""The maximum length of an ETag or a date that is sent back."""
_MAX_TEXT = 300


@frozen
class FeedState:
    """What is known about a list. Times are in seconds since the epoch.

    ``checked`` is when the server last sent the list, or confirmed it, and ``tried`` when it was last asked;
    None for never. ``error`` is why the latest request failed, "" if it did not. ``due`` is the time of the
    next request, ``failures`` the number of failed requests without a break. ``etag`` and ``modified`` are
    the server's validators of the list. ``cursor`` is that of APIBAN.
    """

    checked: float | None = None
    tried: float | None = None
    error: str = ""
    due: float = 0.0
    failures: int = 0
    etag: str = ""
    modified: str = ""
    cursor: str = ""


def load_state(path: Path) -> FeedState:
    """Return what is known about the list ``path``; the empty state if the file is missing or damaged."""
    try:
        with path.with_name(path.name + STATE_SUFFIX).open("rb") as file:
            found: dict[str, Any] = json.loads(file.read(MAX_STATE))
        return FeedState(
            checked=None if found["checked"] is None else float(found["checked"]),
            tried=None if found["tried"] is None else float(found["tried"]),
            error=str(found["error"])[:_MAX_TEXT],
            due=float(found["due"]),
            failures=int(found["failures"]),
            etag=str(found["etag"])[:MAX_VALIDATOR],
            modified=str(found["modified"])[:MAX_VALIDATOR],
            cursor=str(found["cursor"])[:MAX_CURSOR],
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return FeedState()


def save_state(path: Path, state: FeedState) -> None:
    """Write what is known about the list ``path``; raise OSError."""
    write(path.with_name(path.name + STATE_SUFFIX), json.dumps(asdict(state)).encode())


def write(path: Path, content: bytes) -> None:
    """Write a file, so that a crash leaves the old or the new one; raise OSError."""
    partial = path.with_name(f".{path.name}.new")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
