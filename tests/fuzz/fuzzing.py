"""The process that fuzzes one target with atheris: ``python -m tests.fuzz.fuzzing NAME SECONDS FOLDER``.

It keeps each new finding, and goes on. Only an input that takes two minutes, or stops Python itself, ends it.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ringfence", "http", "tomllib", "uvicorn", "h11"]):
    from tests.fuzz.table import TARGETS

from tests.fuzz.findings import folder_of, keep
from tests.fuzz.mutations import MARKS
from tests.fuzz.promises import Checker, Target

import ringfence

_LONGEST = 16_384
_LONGEST_WORD = 32
_MOST_BLANKS = 2  # of a word; a text with more is a sentence for people
_SLOWNESS = 5.0
_TIMEOUT = 120  # seconds of the clock, which pass also while other processes run
_MEMORY = 2_048


def main(name: str, seconds: str, folder: str) -> None:
    """Fuzz a target for so many seconds, with the inputs that earlier runs found."""
    root, checker = Path(folder), Checker(TARGETS[name], slowness=_SLOWNESS, longest=_LONGEST)
    corpus, findings = root / "corpus" / name, folder_of(name, root)
    for one in (corpus, findings):
        one.mkdir(parents=True, exist_ok=True)
    for data in TARGETS[name].corpus():
        (corpus / hashlib.sha256(data).hexdigest()).write_bytes(data)

    words = root / f"{name}.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in sorted(_words_of(TARGETS[name]))), "ascii")

    def check(data: bytes) -> None:
        found = checker.check(data)
        if found is not None and (line := keep(found, root)):
            print(line, flush=True)

    options = [
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST}",
        f"-dict={words}",
        f"-timeout={_TIMEOUT}",
        f"-report_slow_units={_TIMEOUT}",
        f"-rss_limit_mb={_MEMORY}",
        f"-artifact_prefix={findings}/",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], str(corpus), *options], check)
    atheris.Fuzz()


def _words_of(target: Target) -> set[bytes]:
    """Return the short texts in the code of a target's modules, which are the words of its formats."""
    return {word for word in (*MARKS, *_constants_of(target)) if 0 < len(word) <= _LONGEST_WORD}


def _constants_of(target: Target) -> Iterator[bytes]:
    for module in target.modules:
        tree = ast.parse((Path(ringfence.__file__).parent / module).read_bytes())
        for node in ast.walk(tree):
            value = node.value if isinstance(node, ast.Constant) else None
            word = value.encode() if isinstance(value, str) else value
            if isinstance(word, bytes) and word.count(b" ") <= _MOST_BLANKS:
                yield word


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main(*sys.argv[1:])
