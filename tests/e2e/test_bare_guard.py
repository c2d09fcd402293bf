"""The bare guard at a real Asterisk: a copy of ringfence without any feature passes the guard's own tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.copies import copy_without

from ringfence import street

pytestmark = pytest.mark.asterisk
HERE = Path(__file__).parent
TESTS = (
    "test_a_guesser_is_stopped_and_banned",
    "test_a_phone_is_left_alone",
    "test_an_attempt_of_three_sources_counts_once",
    "test_unban_ends_one_ban",
    "test_off_ends_all_bans_and_on_restores_them",
)


def test_a_copy_without_any_feature_guards_asterisk(tmp_path: Path) -> None:
    """Guessers are banned in the kernel, phones are left alone, and commands end bans."""
    copied = copy_without([*street.STREET], tmp_path)
    chosen = [f"{HERE}/test_guard.py::{name}" for name in TESTS]
    program = (
        "import pytest, ringfence, sys\n"
        "assert ringfence.__file__.startswith(sys.argv.pop(1))\n"
        "sys.exit(pytest.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(copied), "-q", "-p", "no:cacheprovider", *chosen],
        env={**os.environ, "PYTHONPATH": str(copied)},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-1_000:]
    assert " skipped" not in done.stdout, done.stdout[-4_000:]
