"""The lines of ``ringfence check`` about the databases of regions."""

from pathlib import Path

from tests.support.unprivileged import unprivileged

from ringfence.cli.check import Checked
from ringfence.config.loader import parse
from ringfence.features.geo.check import findings
from ringfence.host.console import NoConsole


def lines(*databases: Path) -> list[str]:
    """Return the lines about these databases."""
    settings = parse({"geo": {"database": [str(one) for one in databases]}}, "", {}, secrets=False)
    return [one.line for one in findings(Checked(settings, None, NoConsole(""), Path()))]


def test_a_database_is_a_file(tmp_path: Path) -> None:
    """A file has no line; nothing in its place has one, and so has a folder."""
    there, absent = tmp_path / "geo.mmdb", tmp_path / "absent.mmdb"
    there.write_bytes(b"")

    assert lines(there, absent, tmp_path) == [
        f"NO  geo: {one} does not exist; see [geo] database" for one in (absent, tmp_path)
    ]


def test_a_database_in_a_closed_folder_is_unknown() -> None:
    """Another user than root may run the check: it does not end there."""
    with unprivileged() as folder:
        closed = folder / "closed"
        closed.mkdir(mode=0)
        [line] = lines(closed / "geo.mmdb")

    assert line.startswith(f"--  geo: {closed}/geo.mmdb is in a folder that this user may not enter")
