"""Prints the place of each function that the corpora of all targets enter: its file, and its first line.

It runs in a process of its own, because a function with a cached result is not entered.
"""

import sys
import threading
from contextlib import suppress
from types import FrameType

from tests.fuzz.table import TARGETS


def main() -> None:
    """Read the corpus of each target."""
    found = set[str]()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            path = frame.f_code.co_filename.rpartition("/ringfence/")[2]
            found.add(f"{path}:{frame.f_code.co_firstlineno}")

    threading.setprofile(note)
    for target in TARGETS.values():
        corpus = [*target.corpus()]
        sys.setprofile(note)
        try:
            for data in corpus:
                with suppress(*target.errors):
                    target.read(data)
        finally:
            sys.setprofile(None)
    print(*found, sep="\n")


if __name__ == "__main__":
    main()
