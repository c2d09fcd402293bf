"""Files for the readers that take a path: in a folder of this process, which goes with it."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path


@cache
def folder() -> Path:
    """Return the folder."""
    path = Path(tempfile.mkdtemp(prefix="ringfence-fuzz-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def file(name: str, data: bytes) -> Path:
    """Write a file of the folder; return its path."""
    path = folder() / name
    path.write_bytes(data)
    return path
