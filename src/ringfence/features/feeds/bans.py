"""The notes of ``ringfence bans`` about feeds, below its list."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ringfence.cli.common import ask_daemon
from ringfence.plurals import counted


def notes(config: Path, networks: Sequence[str] | None) -> Iterator[str]:
    """Yield which feeds deny the networks that the user asked for; without any, how many all feeds deny."""
    asked: dict[str, Any] = {"networks": networks} if networks else {}
    rows = ask_daemon(config, "feeds", quietly=True, **asked)
    if networks:
        yield from (f"{one} is denied by the feed {row['name']}" for row in rows for one in row["denies"])
    elif names := [row["name"] for row in rows if row["state"] == "in force"]:
        total = sum(row["networks"] for row in rows if row["state"] == "in force")
        more = counted(total, "more network")
        yield f"Feeds deny {more}: {', '.join(names)}; see: ringfence feeds list"
