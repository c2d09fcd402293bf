"""Fuzzes the readers of bytes from outside, one after the other, and prints each finding with its command.

The inputs that reached new code, and the findings, stay in ``.fuzz``, so the next run goes on from there.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.findings import FOLDER, command_of, inputs_of, repeat
from tests.fuzz.table import TARGETS

_UNITS = "stat::number_of_executed_units:"
_LEAST = 5.0  # seconds for which a process that ended early is started again


def main() -> int:
    """Fuzz the targets, or read one finding again; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long to fuzz each target")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="only this target")
    parser.add_argument("--repeat", type=Path, metavar="FILE", help="read the input of a finding again")
    options = parser.parse_args()
    if options.repeat is not None:
        what = repeat(options.repeat)
        print(what or "no promise is broken")
        return int(bool(what))
    return int(sum(_has_findings(name, options.seconds) for name in options.target or TARGETS) > 0)


def _has_findings(name: str, seconds: float) -> bool:
    """Fuzz a target; print and return whether it has findings, those of earlier runs too."""
    print(f"{name}: {seconds:.0f} s", flush=True)
    ends, read = time.monotonic() + seconds, 0
    while (left := ends - time.monotonic()) >= min(_LEAST, seconds / 2):
        command = [sys.executable, "-m", "tests.fuzz.fuzzing", name, f"{left:.0f}", str(FOLDER)]
        done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
        lines = done.stderr.split("\n")
        units = [line for line in lines if line.startswith(_UNITS)]
        print(*units, sep="\n")
        read += sum(int(line.removeprefix(_UNITS)) for line in units)
        if not done.returncode:
            break
        print(*lines[-30:], sep="\n", flush=True)
    found = inputs_of(name)
    for path in found:
        print(f"{name}: {command_of(path)}", flush=True)
    if not (found or read):
        print(f"{name}: no input was read", flush=True)
    return bool(found) or not read


if __name__ == "__main__":
    sys.exit(main())
