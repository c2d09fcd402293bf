"""What x_tables tells without a process."""

import socket

import pytest
from tests.support.netns import run

from ringfence.firewall import xtables
from ringfence.firewall.netlink import Conversation

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


@pytest.mark.parametrize(("version", "tool"), [(4, "iptables-legacy"), (6, "ip6tables-legacy")])
def test_a_tables_size_follows_its_rules(version: int, tool: str) -> None:
    """A rule that comes is one entry more, and when it goes the size is what it was; no table is None."""
    before = xtables.table_size(version, "raw")
    run(tool, "-t", "raw", "-A", "OUTPUT", "-j", "ACCEPT")
    with_one = xtables.table_size(version, "raw")
    run(tool, "-t", "raw", "-F")

    assert before is not None
    assert with_one is not None
    assert with_one.entries == before.entries + 1
    assert with_one.size > before.size
    assert xtables.table_size(version, "raw") == before
    assert xtables.table_size(version, "none of it") is None


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("compat", [True, False], ids=["nft_compat", "getsockopt"])
def test_extensions_are_known_by_name(version: int, monkeypatch: pytest.MonkeyPatch, *, compat: bool) -> None:
    """A match and a target that the kernel has are told from those it lacks, in both ways of asking."""
    if not compat:
        monkeypatch.setattr(xtables, "_COMPAT_GET", 250 << 8)
    with Conversation() as kernel:
        assert xtables.has_extension(kernel, version, "set")
        assert xtables.has_extension(kernel, version, "SET", target=True)
        assert not xtables.has_extension(kernel, version, "no such match")
        assert not xtables.has_extension(kernel, version, "NO SUCH TARGET", target=True)


def test_what_the_kernel_does_not_tell_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither way answers the question, nothing is said to be lacking."""
    monkeypatch.setattr(xtables, "_COMPAT_GET", 250 << 8)
    monkeypatch.setattr(xtables, "_LEVELS", {4: socket.SOL_SOCKET})
    with Conversation() as kernel:
        assert xtables.has_extension(kernel, 4, "set")
