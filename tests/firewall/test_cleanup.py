"""Removal of every set and rule of ringfence, for each backend."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.netns import run

import ringfence
from ringfence.errors import FirewallError
from ringfence.firewall import KERNEL_BACKENDS, make_backend
from ringfence.firewall.cleanup import flush_everything, flush_other_backends


def state() -> str:
    """Return the sets, rules and tables in the kernel."""
    return run("ipset", "list", "-n") + run("iptables-save") + run("nft", "list", "tables")


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_both_kernel_backends_are_flushed() -> None:
    """One call removes everything of ipset and nftables, and may be repeated."""
    for name in KERNEL_BACKENDS:
        backend = make_backend(name)
        backend.open()
        backend.close()
    assert "ringfence" in state()
    for _ in range(2):
        flush_everything()

        assert "ringfence" not in state()


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_one_backend_may_be_excepted() -> None:
    """A daemon that changed its backend removes the other backend's sets and rules and keeps its own."""
    for name in KERNEL_BACKENDS:
        backend = make_backend(name)
        backend.open()
        backend.close()
    assert flush_other_backends("nftables") == ["ipset"]

    assert run("ipset", "list", "-n") == ""
    assert "inet ringfence" in run("nft", "list", "tables")
    flush_everything()


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_a_set_in_use_is_reported_and_the_rest_is_removed() -> None:
    """A set that a foreign rule uses stays, and the error names it; everything else is removed."""
    for name in KERNEL_BACKENDS:
        backend = make_backend(name)
        backend.open()
        backend.close()
    run("iptables", "-A", "INPUT", "-m", "set", "--match-set", "ringfence4", "src", "-j", "DROP")
    with pytest.raises(FirewallError, match="not ringfence's"):
        flush_everything()

    assert run("nft", "list", "tables").count("ringfence") == 0


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("kept", KERNEL_BACKENDS)
def test_only_the_other_backend_is_flushed(kept: str) -> None:
    """The other backend is flushed and named; if it has nothing, nothing is done, and ours stays."""
    for name in KERNEL_BACKENDS:
        backend = make_backend(name)
        backend.open()
        backend.close()
    other = next(name for name in KERNEL_BACKENDS if name != kept)

    assert (flush_other_backends(kept), flush_other_backends(kept)) == ([other], [])
    assert ("ringfence4" in state(), "inet ringfence" in state()) == (kept == "ipset", kept == "nftables")
    assert flush_other_backends(other) == [kept]
    assert "ringfence" not in state()


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("times", [1, pytest.param(6, marks=pytest.mark.long)])
def test_several_processes_may_flush_at_once(times: int) -> None:
    """Several processes may flush at the same time: none fails, and everything is removed."""
    code = "from ringfence.firewall.cleanup import flush_everything; flush_everything()"
    environ = os.environ | {"PYTHONPATH": str(Path(str(ringfence.__file__)).parent.parent)}
    for _ in range(times):
        with closing(make_backend("ipset")) as backend:
            backend.open()
        running = [subprocess.Popen([sys.executable, "-c", code], env=environ) for _ in range(3)]
        assert [one.wait(30) for one in running] == [0, 0, 0]
        assert "ringfence" not in state()
