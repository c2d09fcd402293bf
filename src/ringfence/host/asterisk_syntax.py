"""Finds the errors for which Asterisk refuses a whole configuration file (``main/config.c``).

:mod:`ringfence.host.asterisk_conf` ignores these errors, and reads the rest of the file. But a program that
changes a file must know first whether Asterisk accepts it.
"""

from pathlib import Path

from ringfence.host.asterisk_conf import DEEPEST, MOST_BYTES, MOST_FILES, directive_of, uncommented
from ringfence.host.owned_files import matching, opened_parent, read_file
from ringfence.model import printable


def faults_of(path: Path) -> list[str]:
    """Return each error of a file and its includes, as ``FILE:LINE: what is wrong``; [] if it is valid."""
    checker = _Checker(path.parent)
    checker.check(path, f"{path}", 0)
    return checker.faults


class _Checker:
    """Checks a file and its includes, and collects the errors.

    A template, and a section that is added to, must be defined earlier. So the names of all sections so far
    are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.faults: list[str] = []
        self._folder = folder
        self._sections: set[str] = set()
        self._begun = False
        self._files = 0

    def check(self, path: Path, named: str, depth: int) -> None:
        """Check one file. If it cannot be read, the message begins with ``named``.

        ``named`` is the line that includes the file (``FILE:LINE``), or the file itself.
        """
        self._files += 1
        if self._files > MOST_FILES or depth > DEEPEST:
            self.faults.append(f"{named}: the files include each other too deeply")
            return
        try:
            data, _ = read_file(path, MOST_BYTES)
        except OSError as error:
            self.faults.append(f"{named}: {path} cannot be read: {error.strerror}")
            return
        for number, line in uncommented(data.decode("utf-8", "replace")):
            fault = self._line(line, f"{path}:{number}", depth)
            if fault:
                self.faults.append(f"{path}:{number}: {fault}")

    def _line(self, line: str, where: str, depth: int) -> str:
        if line.startswith("["):
            return self._section(line)
        if line.startswith("#"):
            return self._include(line, where, depth)
        return "" if self._begun else "an option stands before the first section"

    def _section(self, line: str) -> str:
        name, closed, rest = line[1:].partition("]")
        if not closed:
            return "a section has no closing ]"
        marks, rest = "", rest.strip()
        if rest.startswith("("):
            marks, ended, _ = rest[1:].partition(")")
            if not ended:
                return "a ( has no closing )"
        name = name.strip()
        for mark in filter(None, (one.strip() for one in marks.split(","))):
            wanted = name if mark.startswith("+") else mark
            if mark != "!" and wanted not in self._sections:
                return f"there is no section {printable(wanted)} before this line"
        self._sections.add(name)
        self._begun = True
        return ""

    def _include(self, line: str, where: str, depth: int) -> str:
        command, name = directive_of(line)
        if command not in {"include", "tryinclude"} or not name:
            return ""
        pattern = str(self._folder / name)
        found = matching(Path(pattern))
        for path in found:
            self.check(path, where, depth + 1)
        if not found and command == "include":
            lost = "does not exist" if _is_searchable(Path(pattern)) else "cannot be searched"
            return f"{printable(name)} is included and {lost}"
        return ""


def _is_searchable(path: Path) -> bool:
    """Whether this process may search the folder of a file. True too if the folder does not exist."""
    try:
        with opened_parent(path) as (folder, name):
            folder.state(name)
    except OSError as error:
        return isinstance(error, FileNotFoundError | NotADirectoryError)
    return True
