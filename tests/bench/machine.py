"""What a page of figures states about its run: the commit, the machine, and the versions."""

import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.bench.testbed import CORES
from tests.support.lab import Lab


def described(releases: Iterable[str]) -> str:
    """Return the commit, the machine, and the versions of these releases of Asterisk."""
    versions = []
    for release in releases:
        with Lab.made(release) as lab:
            versions.append(lab.asterisk.version)
    return (
        f"of commit {_commit()}: {len(CORES)} processors ({_processor()}), Linux {platform.release()}, "
        f"Python {platform.python_version()}, {' and '.join(versions)}."
    )


def _commit() -> str:
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git(
        "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)tests/*/RESULTS.md"
    )
    return (git("rev-parse", "HEAD") or "unknown") + (
        ", with changes that are not committed" if changed else ""
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").split("\n")
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
