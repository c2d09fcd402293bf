"""Each branch of Asterisk's reader of configuration files, as ringfence and two real Asterisks read it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.asterisk import Asterisk, tree_of
from tests.support.conf_branches import BRANCHES, Branch, read_here
from tests.support.loaded_files import USERS, FileLoader, write_files
from tests.support.network import Network


@pytest.fixture(name="loader", scope="module", params=["16", "22"])
def _loader(request: pytest.FixtureRequest) -> Iterator[FileLoader]:
    """Return a real Asterisk that loads files."""
    tree = tree_of(request.param)
    with (
        Network() as network,
        Asterisk(tree, network.pbx, extra={"manager.conf": USERS}) as asterisk,
        FileLoader(asterisk) as loader,
    ):
        yield loader


@pytest.mark.parametrize("branch", BRANCHES, ids=lambda branch: branch.name)
def test_ringfence_reads_each_branch_as_asterisk_does(tmp_path: Path, branch: Branch) -> None:
    """The sections and options are those that Asterisk loads, or both refuse the file."""
    write_files(tmp_path, branch.files(str(tmp_path).encode()))

    assert read_here(tmp_path) == branch.loaded


@pytest.mark.asterisk
def test_a_real_asterisk_loads_each_branch(loader: FileLoader) -> None:
    """Each expected result is the one of the real Asterisk."""
    found = {branch.name: loader.load(branch.files()) for branch in BRANCHES}

    assert found == {branch.name: branch.loaded for branch in BRANCHES}


def test_the_branches_have_names_of_their_own() -> None:
    """No branch hides another one."""
    assert len({branch.name for branch in BRANCHES}) == len(BRANCHES)
