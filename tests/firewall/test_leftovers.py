"""Everything of ours goes, whichever backend put it there."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.netns import run

import ringfence
from ringfence.errors import FirewallError
from ringfence.firewall import KERNELS, make_backend
from ringfence.firewall.leftovers import flush_everything, flush_the_other


def state() -> str:
    """Give what of ours is in the kernel's firewall."""
    return run("ipset", "list", "-n") + run("iptables-save") + run("nft", "list", "tables")


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_both_kernels_are_emptied() -> None:
    """What ipset and nftables hold of ours is gone after one call, and may be asked for again."""
    for name in KERNELS:
        backend = make_backend(name)
        backend.open()
        backend.close()
    assert "ringfence" in state()
    for _ in range(2):
        flush_everything()

        assert "ringfence" not in state()


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_one_may_be_spared() -> None:
    """A daemon that changed its backend takes away the other's and keeps its own."""
    for name in KERNELS:
        backend = make_backend(name)
        backend.open()
        backend.close()
    flush_everything(but="nftables")

    assert run("ipset", "list", "-n") == ""
    assert "inet ringfence" in run("nft", "list", "tables")
    flush_everything()


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_what_one_cannot_remove_is_told_when_the_other_is_gone() -> None:
    """A set that somebody else's rule uses stays, and is named; everything else goes."""
    for name in KERNELS:
        backend = make_backend(name)
        backend.open()
        backend.close()
    run("iptables", "-A", "INPUT", "-m", "set", "--match-set", "ringfence4", "src", "-j", "DROP")
    with pytest.raises(FirewallError, match="not ringfence's"):
        flush_everything()

    assert run("nft", "list", "tables").count("ringfence") == 0


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("kept", KERNELS)
def test_only_what_another_backend_has_is_taken_away(kept: str) -> None:
    """What the other has goes and is named; where it has nothing nothing is done, and our own stays."""
    for name in KERNELS:
        backend = make_backend(name)
        backend.open()
        backend.close()
    other = next(name for name in KERNELS if name != kept)

    assert (flush_the_other(kept), flush_the_other(kept)) == ([other], [])
    assert ("ringfence4" in state(), "inet ringfence" in state()) == (kept == "ipset", kept == "nftables")
    assert flush_the_other(other) == [kept]
    assert "ringfence" not in state()


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_several_may_take_everything_away_at_once() -> None:
    """A command and the daemon that sees it, or two administrators: nobody fails, and nothing is left."""
    code = "from ringfence.firewall.leftovers import flush_everything; flush_everything()"
    environ = os.environ | {"PYTHONPATH": str(Path(str(ringfence.__file__)).parent.parent)}
    for _ in range(4):
        with closing(make_backend("ipset")) as backend:
            backend.open()
        running = [subprocess.Popen([sys.executable, "-c", code], env=environ) for _ in range(3)]
        assert [one.wait(30) for one in running] == [0, 0, 0]
        assert "ringfence" not in state()
