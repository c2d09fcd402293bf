"""A source that is read in a process of its own, on another processor than the one that judges.

What is told travels as columns of plain values, packed by :mod:`marshal`: to pickle events would take longer
than to read them. Nothing is shared: the process is given the story and gives back batches, in order, as fast
as they are taken.
"""

import gc
import marshal
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

from ringfence.errors import SourceError
from ringfence.model import Address, Endpoint, EventKind, Service, SourceId, Transport
from ringfence.parse.ordinary import FIELDS
from ringfence.replay.story import Batch, Story, told

_VERSION = 2  # of marshal's format: the later ones look for values that come twice, which takes time
_REMEMBERED = 4_096


class Beside:
    """A source and the process that reads it, from now on; :meth:`close` ends both."""

    def __init__(self, story: Story) -> None:
        self._story = story
        # A fork takes a hundredth of what a new interpreter takes, and no thread runs yet.
        context = multiprocessing.get_context("fork")
        self._batches, batches = context.Pipe(duplex=False)
        self._process = context.Process(target=_tell, args=(story, batches, self._batches), daemon=True)
        self._process.start()
        batches.close()

    def __iter__(self) -> Iterator[Batch]:
        try:
            while data := self._batches.recv_bytes():
                yield unpacked(data)
        except (EOFError, OSError):  # the latter where it ends within a batch
            raise SourceError(f"{self._story.files[0].path}: the process that read it was ended") from None

    def close(self) -> None:
        """End the process, whether or not it has told everything."""
        self._batches.close()
        self._process.terminate()
        self._process.join()


def _tell(story: Story, batches: Connection, other_end: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this ends it
    other_end.close()  # so that writing fails where nobody reads any more
    gc.disable()  # nothing here is in a circle
    try:
        for batch in told(story):
            batches.send_bytes(packed(batch))
        batches.send_bytes(b"")
    except SourceError as error:
        batches.send_bytes(marshal.dumps(str(error), _VERSION))
    except BrokenPipeError:
        return


def packed(batch: Batch) -> bytes:
    """Pack a batch."""
    columns = [
        _told_apart(column, _KINDS[name][0]) if name in _KINDS else column
        for name, column in zip(FIELDS, batch.columns, strict=False)
    ]
    senders = [(*_plain_address(address), number) for address, number in batch.senders]
    numbers = (batch.lines, batch.tampered, batch.read, batch.warnings)
    return marshal.dumps((columns, senders, numbers), _VERSION)


def unpacked(data: bytes) -> Batch:
    """Give the batch that was packed; raise the SourceError that came in its place."""
    found = marshal.loads(data)  # noqa: S302 - written by a process of our own
    if isinstance(found, str):
        raise SourceError(found)
    columns, senders, numbers = found
    return Batch(
        [
            _together(_KINDS[name][1], *column) if name in _KINDS else column
            for name, column in zip(FIELDS, columns, strict=False)
        ],
        [(_address(version, value), number) for version, value, number in senders],
        *numbers,
    )


def _told_apart(
    column: Sequence[Any], plain: Callable[[Any], tuple[Any, ...]]
) -> tuple[list[tuple[Any, ...]], list[int]]:
    """Give the objects of a column as plain values, each once, and for each place which one stands there."""
    names = [*map(id, column)]
    objects = dict(zip(names, column, strict=True))
    places = dict(zip(objects, count(), strict=False))
    return [*map(plain, objects.values())], [*map(places.__getitem__, names)]


def _together(
    whole: Callable[..., Any], values: Iterable[tuple[Any, ...]], places: Iterable[int]
) -> list[Any]:
    objects = [whole(*value) for value in values]
    return [*map(objects.__getitem__, places)]


def _plain_address(address: Address) -> tuple[int, int]:
    return address.version, int(address)


# The same object for the same address: to compare two of them takes time.
@lru_cache(maxsize=_REMEMBERED)
def _address(version: int, value: int) -> Address:
    return IPv4Address(value) if version == 4 else IPv6Address(value)  # noqa: PLR2004 - IPv4


@lru_cache(maxsize=_REMEMBERED)
def _endpoint(version: int, value: int, port: int, transport: str) -> Endpoint:
    return Endpoint(_address(version, value), port, Transport(transport))


# The columns of few objects that come again and again: to plain values, and back.
_KINDS: dict[str, tuple[Callable[[Any], tuple[Any, ...]], Callable[..., Any]]] = {
    "source": (lambda source: (source.asterisk, source.witness), lru_cache(SourceId)),
    "kind": (lambda kind: (kind.value,), EventKind),
    "service": (lambda service: (service.value,), Service),
    "remote": (
        lambda end: (*_plain_address(end.address), end.port, end.transport.value),
        _endpoint,
    ),
}
