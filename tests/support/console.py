"""A program ``asterisk`` that asks an Asterisk of the laboratory, as the one of a real PBX asks its own."""

import os
from pathlib import Path

from tests.support.asterisk import Asterisk


def console_of(asterisk: Asterisk, folder: Path) -> Path:
    """Put the program into ``folder``, and give its path."""
    program = folder / "asterisk"
    enter = f"nsenter --target={asterisk.pid} --mount --net --root --wd"
    program.write_text(f'#!/bin/sh\nexec {enter} /usr/sbin/asterisk "$@"\n', "utf-8")
    program.chmod(0o755)
    return program


def path_with(program: Path) -> dict[str, str]:
    """Give an environment in which ``program`` is the first of its name."""
    return {"PATH": f"{program.parent}:{os.environ['PATH']}"}
