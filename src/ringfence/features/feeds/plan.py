"""The plan of the fetcher: which lists it fetches, from where, how often, and into which files.

``ringfence feeds plan`` writes it from the configuration. It contains the keys for the servers, and nothing
else of the configuration, which may name the secrets of Asterisk.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from attrs import asdict, field, frozen

from ringfence.errors import RingfenceError
from ringfence.features.feeds.formats import FeedFormat, identity_of

MAX_PLAN = 1_048_576  # bytes


class FetchError(RingfenceError):
    """A list cannot be fetched from its server."""


@frozen
class PlannedFeed:
    """A list to fetch every ``every`` seconds. ``key`` is the key of APIBAN, "" for other formats."""

    name: str
    url: str = field(repr=False)
    path: Path
    every: float
    format: FeedFormat = FeedFormat.PLAIN
    key: str = field(default="", repr=False)

    @property
    def identity(self) -> str:
        """A digest of the feed's source. What was saved with another digest came from another source."""
        return identity_of(self.url, self.format)


def encode_plan(feeds: Iterable[PlannedFeed]) -> bytes:
    """Return the plan (the lists to fetch) as the content of its file."""
    return json.dumps([asdict(feed) | {"path": str(feed.path)} for feed in feeds], indent=1).encode()


def read_plan(path: Path) -> list[PlannedFeed]:
    """Read the lists to fetch from a plan file; raise FetchError if it cannot be read or is invalid."""
    try:
        with path.open("rb") as file:
            rows = json.loads(file.read(MAX_PLAN))
        return [
            PlannedFeed(
                str(row["name"]),
                str(row["url"]),
                Path(row["path"]),
                float(row["every"]),
                FeedFormat(row["format"]),
                str(row["key"]),
            )
            for row in rows
        ]
    except OSError as error:
        raise FetchError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FetchError(f"{path}: is not a plan of `ringfence feeds plan`") from None
