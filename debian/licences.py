"""Writes debian/copyright: the licence of ringfence, and that of each library in the package.

    python -m debian.licences

``make lock`` runs it after :mod:`debian.lock`, because the texts are those of the locked wheels. The format
is DEP-5: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
"""

import re
import tempfile
from email import message_from_string
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

from debian.lock import download, name_of

if TYPE_CHECKING:
    from email.message import Message

COPYRIGHT = Path(__file__).with_name("copyright")

_HEAD = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: ringfence
Comment: Written by `make lock`. The folder wheels/ has the Python libraries that ringfence needs.

Files: *
Copyright: 2026 ringfence maintainers
License: Apache-2.0
 On Debian systems, its text is in /usr/share/common-licenses/Apache-2.0.
"""

_COMMON = {
    "Apache License": "Apache-2.0",
    "GNU GENERAL PUBLIC LICENSE": "GPL-2",
    "Mozilla Public License": "MPL-2.0",
}
"""How long texts begin that every Debian has, and their names in /usr/share/common-licenses."""

_CLASSIFIED = {
    "MIT License": "MIT",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
}
"""The names of licences in the classifiers of old wheels. Jinja2's text is that of three clauses."""

_NAMED = ("LICEN", "COPYING", "NOTICE")
_HOLDER = re.compile(r"^\W*Copyright ((?:\([cC]\) |© )?(?:[0-9].*|\(C\) .*|[A-Z].*))$", re.MULTILINE)


class LicenceError(Exception):
    """A wheel has no licence that can be stated."""


def stanza(wheel: Path) -> str:
    """Return the paragraph of DEP-5 about one wheel."""
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" in name and name[-1] != "/"]
        [metadata] = [name for name in names if name.endswith("METADATA")]
        facts = message_from_string(archive.read(metadata).decode("utf-8"))
        found = [name for name in sorted(names) if Path(name).name.upper().startswith(_NAMED)]
        texts = [archive.read(name).decode("utf-8") for name in found]
    if not texts:
        raise LicenceError(f"{wheel.name} has no licence")
    lines = [line for text in texts for line in (*_shown(text), "")][:-1]
    holders = [*dict.fromkeys(holder.strip() for text in texts for holder in _holders(text))]
    return (
        f"\nFiles: wheels/{wheel.name.partition('-')[0]}-*\n"
        f"Copyright: {_indented(holders or ['the authors of ' + facts['Name']])}\n"
        f"License: {_licence_of(facts)}\n"
    ) + "".join(f" {line.rstrip() or '.'}\n" for line in lines)


def _holders(text: str) -> list[str]:
    """Return the holders of the copyright that a licence names. Those of the text of the GPL are others."""
    return _HOLDER.findall(text) if "GNU GENERAL" not in text[:200] else []


def _shown(text: str) -> list[str]:
    """Return the lines of a licence, or where they are if every Debian has them."""
    for head, name in _COMMON.items():
        if head in text[:200]:
            return [f"On Debian systems, the text of {name} is in /usr/share/common-licenses/{name}."]
    return text.strip().split("\n")


def _licence_of(facts: "Message[str, str]") -> str:
    """Return the short name of a wheel's licence, as DEP-5 writes it."""
    if expression := facts["License-Expression"]:
        return str(expression).replace(" AND ", " and ").replace(" OR ", " or ")
    classified = [one.rpartition(":: ")[2] for one in facts.get_all("Classifier", []) if "License" in one]
    for name in classified:
        if name in _CLASSIFIED:
            return _CLASSIFIED[name]
    raise LicenceError(f"{facts['Name']} states no licence that is known")


def _indented(lines: list[str]) -> str:
    return "\n           ".join(lines)


def main() -> None:
    """Write debian/copyright."""
    with tempfile.TemporaryDirectory(prefix="ringfence-wheels-") as name:
        download(Path(name))
        wheels = sorted(Path(name).iterdir(), key=lambda wheel: name_of(wheel.name))
        COPYRIGHT.write_text(_HEAD + "".join(stanza(wheel) for wheel in wheels), "utf-8")


if __name__ == "__main__":
    main()
