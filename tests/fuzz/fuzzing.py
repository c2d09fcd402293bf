"""The process that fuzzes one target with atheris: ``python -m tests.fuzz.fuzzing NAME SECONDS FOLDER``.

It keeps each new finding, and goes on. Only an input that takes 30 seconds, or stops Python itself, ends it.
"""

import hashlib
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ringfence", "http", "tomllib", "uvicorn", "h11"]):
    from tests.fuzz.table import TARGETS

from tests.fuzz.findings import folder_of, keep
from tests.fuzz.promises import Checker

_LONGEST = 16_384
_TIMEOUT = 30
_MEMORY = 2_048


def main(name: str, seconds: str, folder: str) -> None:
    """Fuzz a target for so many seconds, with the inputs that earlier runs found."""
    root, checker = Path(folder), Checker(TARGETS[name])
    corpus, findings = root / "corpus" / name, folder_of(name, root)
    for one in (corpus, findings):
        one.mkdir(parents=True, exist_ok=True)
    for data in TARGETS[name].corpus():
        (corpus / hashlib.sha256(data).hexdigest()).write_bytes(data)

    def check(data: bytes) -> None:
        found = checker.check(data)
        if found is not None and (line := keep(found, root)):
            print(line, flush=True)

    options = [
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST}",
        f"-timeout={_TIMEOUT}",
        f"-report_slow_units={_TIMEOUT}",
        f"-rss_limit_mb={_MEMORY}",
        f"-artifact_prefix={findings}/",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], str(corpus), *options], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
