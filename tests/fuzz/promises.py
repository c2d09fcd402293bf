"""The promises that every reader of bytes from outside keeps, and the check of one input.

- A reader raises no exception except those that it documents (``Target.errors``).
- It takes linear time: at most ``Target.slowest`` seconds for each byte. If a part of an input is repeated
  twice and four times as often, the time may not triple twice.
- It takes memory in proportion to what it decodes: ``Target.fixed`` bytes, and ``Target.per_byte`` for each
  byte of the input. What a reader keeps from one input to the next has bounds of its own, which ``read``
  checks with :func:`require`.

Time is the processor time of the thread. So another process cannot break a promise.
"""

import random
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from traceback import extract_tb

from attrs import Factory, define, frozen
from tests.parse.worst import seconds

SLOWEST = 40e-6
"""The most seconds for each byte of an input. The slowest reader needs a tenth of that on a slow machine."""
START = 0.1
"""The seconds that an input of any length may take."""
LONGEST = 60_000
"""The length in bytes up to which a part of an input is repeated."""
_ROUNDS = 8
"""How often an input must take too long: other programs slow single rounds, also in CPU time."""
_NOISE = 0.01  # seconds


class BrokenPromiseError(Exception):
    """A reader has broken a promise. The text begins with a word that names the promise."""


@frozen
class Target:
    """A reader of bytes from outside.

    ``read`` reads one input, and checks what the reader returns and keeps. ``corpus`` returns inputs to begin
    with. ``modules`` are the modules of ringfence that this target reads with. ``errors`` are the exceptions
    that the reader documents. ``tries`` is the number of random changes that ``make test`` reads.
    """

    name: str
    read: Callable[[bytes], object]
    corpus: Callable[[], Iterable[bytes]]
    modules: tuple[str, ...]
    errors: tuple[type[Exception], ...] = ()
    fixed: int = 1 << 20
    per_byte: int = 64
    tries: int = 500
    longest: int = LONGEST
    slowest: float = SLOWEST


@frozen
class Finding:
    """An input that breaks a promise of ``target``, and how: ``what`` is the same for the same cause."""

    target: str
    what: str
    data: bytes


def require(kept: object, what: str) -> None:
    """Raise BrokenPromiseError unless a bound of a reader is kept; ``what`` names the bound."""
    if not kept:
        raise BrokenPromiseError(f"bound: {what}")


@define
class Checker:
    """Checks inputs of one target. It repeats parts of some inputs, and measures the memory of some.

    ``share`` is the part of the time that repeated inputs may take. Memory is measured for one input in
    ``1 / chance``. ``slowness`` is how many times as long instrumented code takes. Parts are repeated up to
    ``longest`` bytes, if the target has no smaller limit.
    """

    target: Target
    share: float = 0.25
    chance: float = 1 / 64
    slowness: float = 1.0
    longest: int = LONGEST
    _random: random.Random = Factory(lambda: random.Random(0))  # noqa: S311 - no secret
    _spent: float = 0.0
    _spent_on_repeated: float = 0.0

    def check(self, data: bytes) -> Finding | None:
        """Read an input; return what it breaks, or None."""
        began = time.thread_time()
        found = self._fault(self._read, data)
        if found is None and self._random.random() < self.chance:
            found = self._fault(self.measure, data)
        self._spent += time.thread_time() - began
        if found is None and data and self._spent_on_repeated <= self.share * self._spent:
            found = self.repeat(data)
        return found

    def repeat(self, data: bytes) -> Finding | None:
        """Repeat a random part of an input; return what that breaks, or None."""
        began = time.thread_time()
        repeated, most = _repeated(data, min(self.longest, self.target.longest), self._random)
        found = self._fault(self._read, repeated(most))
        if found is None and not self._is_linear(repeated, most):
            found = Finding(
                self.target.name, "time: a longer input takes more than linear time", repeated(most)
            )
        self._spent_on_repeated += time.thread_time() - began
        return found

    def _is_linear(self, repeated: Callable[[int], bytes], most: int) -> bool:
        """Whether one of two doublings of an input takes less than three times as long.

        An input may begin with the length of a part, so that the first repetitions are skipped. Then the time
        grows once, when they are more than that.
        """
        for _ in range(_ROUNDS):
            quarter, half, whole = (seconds(self._silent, repeated(most // by)) for by in (4, 2, 1))
            if whole < 3 * half + _NOISE or half < 3 * quarter + _NOISE / 4:
                return True
        return False

    def measure(self, data: bytes) -> None:
        """Read an input; raise BrokenPromiseError if that takes too much memory."""
        self._silent(data)  # what caches keep is not taken for this input
        tracemalloc.start()
        try:
            self._silent(data)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        if most > self.target.fixed + self.target.per_byte * len(data):
            raise BrokenPromiseError("memory: an input takes too much memory")

    def _read(self, data: bytes) -> None:
        most = self.slowness * (START + self.target.slowest * len(data))
        for _ in range(_ROUNDS):
            began = time.thread_time()
            self._silent(data)
            if time.thread_time() - began <= most:
                return
        raise BrokenPromiseError("time: an input takes too long")

    def _silent(self, data: bytes) -> None:
        """Read an input. An error that the reader documents is an answer."""
        try:
            self.target.read(data)
        except self.target.errors:
            return

    def _fault(self, check: Callable[[bytes], None], data: bytes) -> Finding | None:
        try:
            check(data)
        except BrokenPromiseError as error:
            return Finding(self.target.name, str(error), data)
        except Exception as error:  # noqa: BLE001 - every other exception is a finding
            return Finding(self.target.name, _place_of(error), data)
        return None


def _place_of(error: Exception) -> str:
    """Return the type of an exception, and the last line of ringfence that it passed."""
    places = [frame for frame in extract_tb(error.__traceback__) if "/ringfence/" in frame.filename]
    where = f"{places[-1].filename.rpartition('/ringfence/')[2]}:{places[-1].name}" if places else "a library"
    return f"exception: {type(error).__name__} in {where}"


def _repeated(data: bytes, longest: int, chosen: random.Random) -> tuple[Callable[[int], bytes], int]:
    """Return a function that repeats a random part of ``data`` in its place, and how often there is room."""
    data = data[: longest // 4]
    begin = chosen.choice((0, chosen.randrange(len(data))))
    end = min(len(data), begin + 1 + int(chosen.expovariate(1 / chosen.choice((2, 16, 200)))))
    part = data[begin:end]
    return lambda times: data[:begin] + part * times + data[end:], (longest - len(data)) // len(part)


def parts_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the parts of an input, each with a number, which tells what to do with it.

    A part begins with its number (8 bits) and its length (16 bits).
    """
    at = 0
    while at + 3 <= len(data):
        length = int.from_bytes(data[at + 1 : at + 3], "big")
        yield data[at], data[at + 3 : at + 3 + length]
        at += 3 + length


def joined(*parts: tuple[int, bytes]) -> bytes:
    """Return an input of which :func:`parts_of` returns ``parts``."""
    return b"".join(bytes([number]) + len(part).to_bytes(2, "big") + part for number, part in parts)
