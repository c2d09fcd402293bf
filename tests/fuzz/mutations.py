"""Random changes of inputs, the same for the same seed: for ``make test``, which has no atheris."""

import random
from collections.abc import Iterator, Sequence

MARKS = (
    *(
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b"\0",
        b"\x1b",
        b'"',
        b"'",
        b"\\",
        b":",
        b";",
        b",",
        b"=",
        b"%",
        b"[",
        b"{",
    ),
    *(
        b"\xff",
        b"\xc3",
        b"-1",
        b"0",
        b"4294967296",
        b"1e999",
        b"9" * 5_000,
        b"\xef\xbb\xbf",
        b"\x00\x00\x00\x00",
    ),
)
"""Bytes that many formats treat in a special way."""
_MOST = 4
_LONGEST = 8_192


def changed(corpus: Sequence[bytes], number: int, seed: int) -> Iterator[bytes]:
    """Yield ``number`` random changes of inputs of the corpus."""
    chosen = random.Random(seed)  # noqa: S311 - no secret
    for _ in range(number):
        data = bytearray(chosen.choice(corpus)[:_LONGEST])
        for _ in range(chosen.randint(1, _MOST)):
            _change(data, corpus, chosen)
        yield bytes(data)


def _change(data: bytearray, corpus: Sequence[bytes], chosen: random.Random) -> None:
    at = chosen.randint(0, len(data))
    end = min(len(data), at + chosen.choice((1, 1, 2, 4, 16, 100)))
    match chosen.randrange(7):
        case 0 if at < len(data):
            data[at] = chosen.randrange(256)
        case 1 if at < len(data):
            data[at] ^= 1 << chosen.randrange(8)
        case 2:
            del data[at:end]
        case 3:
            data[at:at] = data[at:end] * chosen.choice((1, 2, 20))
        case 4:
            data[at:at] = chosen.choice(MARKS)
        case 5:
            other = chosen.choice(corpus)
            begin = chosen.randint(0, len(other))
            data[at:] = other[begin : begin + _LONGEST]
        case _:
            del data[at:]
