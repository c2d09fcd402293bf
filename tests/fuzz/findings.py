"""The folder of findings: the shortest input of each cause, and the command that repeats it."""

import hashlib
from pathlib import Path

from tests.fuzz.promises import Checker, Finding
from tests.fuzz.table import TARGETS

FOLDER = Path(".fuzz")
_NAME = 12
_TIMES = 20  # a finding about time or memory may need several tries


def folder_of(name: str, root: Path = FOLDER) -> Path:
    """Return the folder with the findings of a target."""
    return root / "findings" / name


def keep(found: Finding, root: Path = FOLDER) -> str:
    """Write a finding, unless one of the same cause has a shorter input.

    Return a line about a new cause; "" for a known one.
    """
    folder = folder_of(found.target, root)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(found.what.encode()).hexdigest()[:_NAME]
    is_new = not path.exists()
    if is_new or len(found.data) < path.stat().st_size:
        path.write_bytes(found.data)
        path.with_suffix(".txt").write_text(f"{found.what}\n{command_of(path)}\n", "utf-8")
    return f"{found.target}: {found.what}; repeat: {command_of(path)}" if is_new else ""


def command_of(path: Path) -> str:
    """Return the command that reads the input of a finding again."""
    return f"python -m tests.fuzz --repeat {path}"


def repeat(path: Path) -> str:
    """Read the input of a finding again; return what it breaks, "" if nothing.

    Raise the exception that the reader raises, so that its traceback is shown.
    """
    target, data = TARGETS[path.parent.name], path.read_bytes()
    checker = Checker(target, chance=1.0)
    for _ in range(_TIMES):
        found = checker.check(data)
        if found is not None and found.what.startswith("exception"):
            target.read(data)
        if found is not None:
            return found.what
    return ""


def inputs_of(name: str, root: Path = FOLDER) -> list[Path]:
    """Return the inputs that were kept as findings of a target."""
    return sorted(path for path in folder_of(name, root).glob("*") if path.suffix != ".txt")
