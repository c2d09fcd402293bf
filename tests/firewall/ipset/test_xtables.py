"""Queries to x_tables without a process."""

import socket

import pytest
from tests.support.netns import run

from ringfence.firewall.ipset import watch
from ringfence.netlink.connection import NetlinkConnection

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


@pytest.mark.parametrize(("version", "tool"), [(4, "iptables-legacy"), (6, "ip6tables-legacy")])
def test_a_tables_size_follows_its_rules(version: int, tool: str) -> None:
    """A new rule is one entry more, and its removal restores the size; a missing table is None."""
    before = watch.table_size(version, "raw")
    run(tool, "-t", "raw", "-A", "OUTPUT", "-j", "ACCEPT")
    with_one = watch.table_size(version, "raw")
    run(tool, "-t", "raw", "-F")

    assert before is not None
    assert with_one is not None
    assert with_one.entries == before.entries + 1
    assert with_one.size > before.size
    assert watch.table_size(version, "raw") == before
    assert watch.table_size(version, "none of it") is None


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("compat", [True, False], ids=["nft_compat", "getsockopt"])
def test_extensions_are_known_by_name(version: int, monkeypatch: pytest.MonkeyPatch, *, compat: bool) -> None:
    """Existing matches and targets are distinguished from missing ones, by both kinds of query."""
    if not compat:
        monkeypatch.setattr(watch, "_COMPAT_GET", 250 << 8)
    with NetlinkConnection() as kernel:
        assert watch.has_extension(kernel, version, "set")
        assert watch.has_extension(kernel, version, "SET", target=True)
        assert not watch.has_extension(kernel, version, "no such match")
        assert not watch.has_extension(kernel, version, "NO SUCH TARGET", target=True)


def test_an_unknown_extension_counts_as_present(monkeypatch: pytest.MonkeyPatch) -> None:
    """If neither query is answered, no extension counts as missing."""
    monkeypatch.setattr(watch, "_COMPAT_GET", 250 << 8)
    monkeypatch.setattr(watch, "_LEVELS", {4: socket.SOL_SOCKET})
    with NetlinkConnection() as kernel:
        assert watch.has_extension(kernel, 4, "set")
