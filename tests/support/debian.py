"""An Asterisk with the unchanged files of Debian's package, except those that a test replaces."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.support.asterisk import Asterisk, tree_of


class DebianAsterisk(Asterisk):
    """One running Asterisk of a default installation. ``files`` replace those of the package."""

    def __init__(self, release: str, namespace: str, files: Mapping[str, str] | None = None) -> None:
        super().__init__(tree_of(release), namespace)
        self._files = files or {}

    def _configure(self) -> None:
        etc = self.folder / "etc"
        shutil.copytree(self.tree / "etc/asterisk", etc, dirs_exist_ok=True)
        for name, text in self._files.items():
            (etc / name).write_text(text, "utf-8")
        owner = (self.tree / "etc/asterisk").stat()
        for path in (etc, *etc.rglob("*")):
            os.chown(Path(path), owner.st_uid, owner.st_gid)
