"""A real Asterisk that loads small configuration files, and the sections that it then has.

AMI's action GetConfig loads any file of the configuration folder with the reader of ``main/config.c``.
"""

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.asterisk import Asterisk
from tests.support.asterisk_files import MANAGER_PORT
from tests.support.network import socket_in

MAIN = "branch.conf"
USERS = "\n[files]\nsecret = files\nread = config\nwrite = config\nwritetimeout = 60000\n"
"""A manager user for manager.conf that may load files."""

_LINE = re.compile(rb"Line-([0-9]{6})-[0-9]{6}: ([^=]*)=(.*)")
_REFUSED = b"Config file has invalid format"


class FileLoader:
    """A session of AMI that loads files with ``asterisk``, which has the manager user of ``USERS``."""

    def __init__(self, asterisk: Asterisk) -> None:
        self._folder = asterisk.folder / "etc"
        self._socket = socket_in(asterisk.namespace)
        self._socket.settimeout(20)
        self._socket.connect(("127.0.0.1", MANAGER_PORT))
        self._rest = b""
        self._until(b"\r\n")
        self._ask(b"Login", b"Username: files", b"Secret: files", b"Events: off")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def load(self, files: Mapping[str, bytes]) -> bytes | None:
        """Write the files, and return what Asterisk loads from ``MAIN`` (see :func:`as_lines`).

        Return None if Asterisk refuses it.
        """
        write_files(self._folder, files)
        try:
            answer = self._ask(b"GetConfig", b"Filename: " + MAIN.encode())
        finally:
            remove_files(self._folder, files)
        if answer.startswith(b"Response: Error"):
            assert _REFUSED in answer, answer
            return None
        sections: dict[bytes, tuple[bytes, list[tuple[bytes, bytes]]]] = {}
        for line in answer.split(b"\r\n"):
            if line.startswith(b"Category-"):
                number, _, name = line.removeprefix(b"Category-").partition(b": ")
                sections[number] = name, []
            elif match := _LINE.fullmatch(line):
                sections[match[1]][1].append((match[2], match[3]))
        return as_lines(sections.values())

    def _ask(self, action: bytes, *fields: bytes) -> bytes:
        self._socket.sendall(b"\r\n".join([b"Action: " + action, *fields, b"", b""]))
        while True:
            answer = self._until(b"\r\n\r\n")
            if answer.startswith(b"Response: "):
                return answer

    def _until(self, end: bytes) -> bytes:
        while end not in self._rest:
            more = self._socket.recv(1 << 16)
            if not more:
                raise ConnectionError("Asterisk closed the session")
            self._rest += more
        found, _, self._rest = self._rest.partition(end)
        return found


def as_lines(sections: Iterable[tuple[bytes, Sequence[tuple[bytes, bytes]]]]) -> bytes:
    """Return sections with their options as the lines of a file."""
    return b"".join(
        b"[%s]\n" % name + b"".join(b"%s=%s\n" % option for option in options) for name, options in sections
    )


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder; a name that ends with ``/`` makes a folder."""
    for name, content in files.items():
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def remove_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Remove what :func:`write_files` wrote."""
    for name in files:
        top = folder / name.partition("/")[0]
        if top.is_dir():
            shutil.rmtree(top)
        else:
            top.unlink(missing_ok=True)
