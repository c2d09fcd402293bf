"""Small configuration files, one or more for each branch of Asterisk's reader, and what Asterisk loads.

They stand in ``conf_branches.txt``. Below the name of a branch is a line for each file: its name, ``|`` and
its content. A line without a name is the main file. The last line is what Asterisk loads, or that it refuses
the file. Bytes are escaped as in Python, and ``«x*80»`` is 80 times x. The results are those of Asterisk 16
and 22, and the tests ask both again.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import frozen
from tests.support.loaded_files import MAIN, as_lines

from ringfence.host.conf_reader import ConfReader

_FOLDER = b"/etc/asterisk"


@frozen
class Branch:
    """The files of one branch by their names. A name that ends with ``/`` is a folder.

    ``loaded`` are the sections with their options, as lines of a file; None if Asterisk refuses the file.
    """

    name: str
    given: Mapping[str, bytes]
    loaded: bytes | None

    def files(self, folder: bytes = _FOLDER) -> dict[str, bytes]:
        """Return the files by name, for Asterisk's folder ``folder``."""
        return {name: content.replace(_FOLDER, folder) for name, content in self.given.items()}


def read_here(folder: Path) -> bytes | None:
    """Return what ringfence reads from the main file in a folder, in the form of ``Branch.loaded``."""
    reader = ConfReader(folder, folder / MAIN)
    reader.read()
    if reader.refused:
        return None
    return as_lines((one.name, one.options) for one in reader.sections if not one.template)


def _branches() -> Iterator[Branch]:
    for block in Path(__file__).with_suffix(".txt").read_text("utf-8").rstrip("\n").split("\n\n"):
        head, *files, result = block.split("\n")
        parts = (file.partition("| ") for file in files)
        given = {name.rstrip() or MAIN: _bytes(text) for name, _, text in parts}
        loaded = None if result == "=> refused" else _bytes(result.removeprefix("=> | "))
        yield Branch(head.removeprefix("== "), given, loaded)


def _bytes(text: str) -> bytes:
    repeated = re.sub(r"«(.+?)\*([0-9]+)»", lambda found: found[1] * int(found[2]), text)
    return repeated.encode("ascii").decode("unicode_escape").encode("latin-1")


BRANCHES = tuple(_branches())
