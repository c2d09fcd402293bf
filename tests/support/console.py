"""A program ``asterisk`` that runs commands in the console of a laboratory's Asterisk."""

import os
from pathlib import Path

from tests.support.asterisk import Asterisk


def console_of(asterisk: Asterisk, folder: Path) -> Path:
    """Write the program into ``folder`` and return its path."""
    program = folder / "asterisk"
    enter = f"nsenter --target={asterisk.pid} --mount --net --root --wd"
    program.write_text(f'#!/bin/sh\nexec {enter} /usr/sbin/asterisk "$@"\n', "utf-8")
    program.chmod(0o755)
    return program


def path_with(program: Path) -> dict[str, str]:
    """Return an environment whose PATH finds ``program`` first."""
    return {"PATH": f"{program.parent}:{os.environ['PATH']}"}
