"""A company's phones on the PBX: how much CPU time the guard and Asterisk use meanwhile.

The phones and scanners are those of the bench (:mod:`tests.bench.busy`). Both of their periods count: in the
first one no scanner is banned yet, and in the second one the calls have media.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.bench.busy import PHONES
from tests.support.lab import Lab
from tests.support.network import inside
from tests.support.process import family_cpu_seconds

SECONDS = 12.0
"""The time of each period."""
PERIODS = 2


def register(lab: Lab) -> None:
    """Register all phones, and then let them disappear."""
    with _company(lab, "--calls", "0", "--packets", "0") as company:
        _until_ready(company)


def costs(lab: Lab, pids: Sequence[int]) -> tuple[float, float]:
    """Return the CPU time of the guard, with that of the programs that it starts, and Asterisk's (seconds).

    Raise RuntimeError if a phone cannot register or call.
    """
    guard, asterisk, failed = 0.0, 0.0, 0
    with _company(lab) as company:
        for _ in range(PERIODS):
            _until_ready(company)
            before = _used(lab, pids)
            time.sleep(SECONDS)
            after = _used(lab, pids)
            guard += after[0] - before[0]
            asterisk += after[1] - before[1]
            failed += _failures(company)
    if failed:
        raise RuntimeError(f"{failed} registrations and calls failed")
    return guard, asterisk


@contextmanager
def _company(lab: Lab, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Start the company's phones and scanners, and kill them at the end."""
    command = inside(
        lab.network.attacker, sys.executable, "-m", "tests.support.company",
        "--phones", str(PHONES), "--seconds", str(SECONDS), *options,
    )  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as company:
        try:
            yield company
        finally:
            company.kill()


def _until_ready(company: subprocess.Popen[str]) -> None:
    """Wait until the next period begins; before the first one, all phones have registered."""
    assert company.stdout is not None
    if company.stdout.readline() != "ready\n":
        raise RuntimeError("the phones did not register")


def _failures(company: subprocess.Popen[str]) -> int:
    """Return how many registrations and calls of the last period failed."""
    assert company.stdout is not None
    done = json.loads(company.stdout.readline())
    return int(done["unregistered"] + done["uncalled"])


def _used(lab: Lab, pids: Sequence[int]) -> tuple[float, float]:
    """Return the CPU time of the guard and that of Asterisk so far.

    The programs that the guard starts count too: those of its main thread at once, others at their end.
    """
    return sum(map(family_cpu_seconds, pids)), lab.asterisk.cpu_seconds()
