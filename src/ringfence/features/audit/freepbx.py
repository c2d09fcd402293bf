"""FreePBX's modules on this host whose versions have known holes, as ``check --hardening`` reports them.

Through these holes a stranger takes over the web interface, and with it the passwords of all accounts. Then
each call has the right password, and no guard of failures sees anything. The table is in this module.

The file ``module.xml`` of each module has its version. FreePBX's user owns these files, so they are hostile:
they are read with the rights of that user, bounded in size, and a file with entities is refused.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

from attrs import frozen

from ringfence.findings import Finding
from ringfence.host.owned_files import exists, read_file
from ringfence.values.text import printable

MODULES = Path("var/www/html/admin/modules")
"""The folder with a folder for each of FreePBX's modules, below the root folder of the host."""
_MOST_BYTES = 1 << 20
_VERSION = re.compile(r"([0-9]{1,6})((?:\.[0-9]{1,6}){1,6})(?:[a-z]{1,8}[0-9.]{0,16})?")


@frozen
class Hole:
    """Holes of a FreePBX module that need no login, or that attackers combine with one that needs none.

    ``fixed`` has the first version without any of them, by the major version of FreePBX.
    """

    module: str
    names: tuple[str, ...]
    what: str
    fixed: tuple[str, ...]


AS_OF = "2026-11-28"
"""The day on which the table was compared with FreePBX's advisories and the CVE records."""

HOLES = (
    Hole(
        "endpoint",
        ("CVE-2025-57819", "CVE-2025-61675", "CVE-2025-61678"),
        "strangers become administrators, and run programs; used by attackers since August 2025",
        ("15.0.66", "16.0.92", "17.0.6"),
    ),
    Hole(
        # The record names the endpoint module, but its versions and its commit are those of the framework.
        "framework",
        ("CVE-2025-66039",),
        "strangers log in with any password if AUTHTYPE is webserver",
        ("16.0.44", "17.0.23"),
    ),
    Hole(
        "missedcall",
        ("CVE-2026-73663",),
        "a caller's name changes the database, also the administrators in it",
        ("16.0.11", "17.0.4"),
    ),
    Hole(
        "ucp",
        ("CVE-2026-73665",),
        "strangers run programs through its Node server (ports 8001 and 8003)",
        ("17.0.9",),
    ),
)


def freepbx_findings(modules: Path) -> Iterator[Finding]:
    """Yield a finding for each installed module of FreePBX with known holes; nothing without a FreePBX.

    ``modules`` has a folder for each module. If none has known holes, one finding says so.
    """
    if not exists(modules):
        return
    good, wrong = [], False
    for hole in HOLES:
        file = modules / hole.module / "module.xml"
        if not exists(file):
            continue
        version = _version_in(file)
        parts = _parts(version)
        if not parts:
            wrong = True
            yield Finding(None, _what(hole), f"{file} names no version that can be read")
            continue
        fix = _fix(hole, parts)
        if fix:
            wrong = True
            yield Finding(
                False,
                _what(hole),
                f"{printable(version)} has {', '.join(hole.names)}: {hole.what}; fix: {fix}; then look for "
                "traces of intruders, because an update removes none (table of " + AS_OF + ")",
            )
        else:
            good.append(f"{hole.module} {printable(version)}")
    if good and not wrong:
        known = "have none of the holes that were known on"
        yield Finding(True, "hardening: FreePBX", f"{', '.join(good)} {known} {AS_OF}")


def _what(hole: Hole) -> str:
    return f"hardening: FreePBX module {hole.module}"


def _fix(hole: Hole, version: tuple[int, ...]) -> str:
    """Return what to do about a module with this version; "" if it has none of the holes."""
    fixed = {_parts(one)[0]: one for one in hole.fixed}
    major = version[0]
    if major in fixed:
        new = fixed[major]
        return "" if version >= _parts(new) else f"fwconsole ma upgrade {hole.module} ({new} or later)"
    if major > max(fixed):
        return ""
    return f"a newer FreePBX; the fixed versions are {', '.join(hole.fixed)}"


def _parts(version: str) -> tuple[int, ...]:
    """Return the numbers of a version such as ``17.0.3``; () if it is none.

    Letters after the numbers, as in ``17.0.1alpha2``, are left out.
    """
    found = _VERSION.fullmatch(version)
    return tuple(int(part) for part in (found[1] + found[2]).split(".")) if found else ()


class _RefusedError(Exception):
    """A file with a declaration that no module has."""


def _version_in(file: Path) -> str:
    """Return the text of the element ``version`` directly in the root element; "" if there is none.

    The elements ``supported`` and ``depends`` have versions too, of other things.
    """
    path: list[str] = []
    texts: list[str] = []

    def refuse(*_: object) -> None:
        raise _RefusedError

    def read(text: str) -> None:
        if path == ["module", "version"]:
            texts.append(text)

    def begin(name: str, _: object) -> None:
        path.append(name)

    def end(_: str) -> None:
        path.pop()

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = begin, end, read
    try:
        data, _ = read_file(file, _MOST_BYTES)
        parser.Parse(data, True)
    except (OSError, expat.ExpatError, _RefusedError, LookupError, ValueError):  # the last two: its encoding
        return ""
    return "".join(texts).strip()
