"""A source that is read in a process of its own, in parallel with the detector.

Events travel as columns of plain values, pack by :mod:`marshal`: pickling events takes longer than reading
them. Nothing is shared: the process gets the input and returns batches, in order, as fast as they are
consumed.
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
from ringfence.replay.source_reader import Batch, ReplayInput, read_batches

_VERSION = 2  # of marshal's format: later versions search for repeated values, which takes time
_CACHE_SIZE = 4_096


class ReaderProcess:
    """A source and the process that reads it, started at once; :meth:`close` ends both."""

    def __init__(self, replay_input: ReplayInput) -> None:
        self._input = replay_input
        # A fork takes a hundredth of the time of a new interpreter, and no thread runs yet.
        context = multiprocessing.get_context("fork")
        self._batches, batches = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_send_batches, args=(replay_input, batches, self._batches), daemon=True
        )
        self._process.start()
        batches.close()

    def __iter__(self) -> Iterator[Batch]:
        try:
            while data := self._batches.recv_bytes():
                yield unpack(data)
        except (EOFError, OSError):  # OSError if the process ends within a batch
            raise SourceError(f"{self._input.files[0].path}: the process that read it was killed") from None

    def close(self) -> None:
        """End the process, even if it has not sent all batches."""
        self._batches.close()
        self._process.terminate()
        self._process.join()


def _send_batches(replay_input: ReplayInput, batches: Connection, other_end: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends this one
    other_end.close()  # so that writing fails once the parent stops reading
    gc.disable()  # there are no reference cycles here
    try:
        for batch in read_batches(replay_input):
            batches.send_bytes(pack(batch))
        batches.send_bytes(b"")
    except SourceError as error:
        batches.send_bytes(marshal.dumps(str(error), _VERSION))
    except BrokenPipeError:
        return


def pack(batch: Batch) -> bytes:
    """Encode a batch."""
    columns = [
        _split(column, _KINDS[name][0]) if name in _KINDS else column
        for name, column in zip(FIELDS, batch.columns, strict=False)
    ]
    senders = [(*_plain_address(address), number) for address, number in batch.senders]
    numbers = (batch.lines, batch.tampered, batch.read, batch.warnings)
    return marshal.dumps((columns, senders, numbers), _VERSION)


def unpack(data: bytes) -> Batch:
    """Decode a batch; raise the SourceError that was sent in its place."""
    found = marshal.loads(data)  # noqa: S302 - written by a process of our own
    if isinstance(found, str):
        raise SourceError(found)
    columns, senders, numbers = found
    return Batch(
        [
            _joined(_KINDS[name][1], *column) if name in _KINDS else column
            for name, column in zip(FIELDS, columns, strict=False)
        ],
        [(_address(version, value), number) for version, value, number in senders],
        *numbers,
    )


def _split(
    column: Sequence[Any], plain: Callable[[Any], tuple[Any, ...]]
) -> tuple[list[tuple[Any, ...]], list[int]]:
    """Return the distinct objects of a column as plain values, and the index of the object in each row."""
    names = [*map(id, column)]
    objects = dict(zip(names, column, strict=True))
    indices = dict(zip(objects, count(), strict=False))
    return [*map(plain, objects.values())], [*map(indices.__getitem__, names)]


def _joined(
    construct: Callable[..., Any], values: Iterable[tuple[Any, ...]], indices: Iterable[int]
) -> list[Any]:
    objects = [construct(*value) for value in values]
    return [*map(objects.__getitem__, indices)]


def _plain_address(address: Address) -> tuple[int, int]:
    return address.version, int(address)


# Return the same object for equal addresses: comparing two objects takes time.
@lru_cache(maxsize=_CACHE_SIZE)
def _address(version: int, value: int) -> Address:
    return IPv4Address(value) if version == 4 else IPv6Address(value)  # noqa: PLR2004 - IPv4


@lru_cache(maxsize=_CACHE_SIZE)
def _endpoint(version: int, value: int, port: int, transport: str) -> Endpoint:
    return Endpoint(_address(version, value), port, Transport(transport))


# Columns with few distinct objects: conversions to plain values, and back.
_KINDS: dict[str, tuple[Callable[[Any], tuple[Any, ...]], Callable[..., Any]]] = {
    "source": (lambda source: (source.asterisk, source.name), lru_cache(SourceId)),
    "kind": (lambda kind: (kind.value,), EventKind),
    "service": (lambda service: (service.value,), Service),
    "remote": (
        lambda end: (*_plain_address(end.address), end.port, end.transport.value),
        _endpoint,
    ),
}
