"""A writable copy of a tree of the laboratory, without copying it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def overlaid(tree: Path, folder: Path) -> Iterator[Path]:
    """Yield a writable overlay of a read-only tree; its changes are gone at the end."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)
    try:
        upper, work, merged = (folder / name for name in ("upper", "work", "merged"))
        for part in (upper, work, merged):
            part.mkdir()
        options = f"lowerdir={tree},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], check=True)
        try:
            yield merged
        finally:
            subprocess.run(["umount", "--lazy", str(merged)], check=True)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
