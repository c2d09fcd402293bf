"""How many small files, one or more for each branch of Asterisk's reader, ringfence reads otherwise."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import Figure
from tests.support.asterisk import Asterisk, tree_of
from tests.support.conf_branches import BRANCHES, Branch, read_here
from tests.support.lab import RELEASES
from tests.support.loaded_files import USERS, FileLoader, write_files
from tests.support.network import Network


def figures(other: Path | None) -> Iterator[Figure]:
    """Load each file with each Asterisk and with ringfence, and yield a row for each Asterisk."""
    for release in RELEASES:
        with (
            Network() as network,
            Asterisk(tree_of(release), network.pbx, extra={"manager.conf": USERS}) as asterisk,
            FileLoader(asterisk) as loader,
        ):
            otherwise = [branch.name for branch in BRANCHES if loader.load(branch.files()) != _here(branch)]
        yield Figure(
            what=f"files that Asterisk {release} loads and ringfence reads otherwise, "
            f"of {len(BRANCHES)} branches",
            measured="; ".join([str(len(otherwise)), *otherwise]),
            must="0",
            reached=not otherwise,
        )


def _here(branch: Branch) -> bytes | None:
    with tempfile.TemporaryDirectory() as name:
        write_files(Path(name), branch.files(name.encode()))
        return read_here(Path(name))
