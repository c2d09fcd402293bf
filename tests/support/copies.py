"""Copies of ringfence without some features, or without any."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import ringfence
from ringfence import street


def copy_without(features: Sequence[str], folder: Path) -> Path:
    """Copy the package with its bytecode, without the folders of these features; return the copy."""
    copied = folder / "copy"
    away = [f"features/{name}" for name in features] if len(features) < len(street.STREET) else ["features"]
    shutil.copytree(
        Path(str(ringfence.__file__)).parent,
        copied / "ringfence",
        ignore=shutil.ignore_patterns("*.pyc.*"),  # bytecode that another process is writing
    )
    for name in away:
        shutil.rmtree(copied / "ringfence" / name)
    return copied
