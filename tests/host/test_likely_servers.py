"""Which running Asterisk counts as the Asterisk of this host."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from ringfence.host import console
from ringfence.host.console import Server, likely_servers, local_console
from ringfence.host.listening import NamedUsers

ASTERISK, LOCAL = 101, 4_242


@pytest.fixture(name="proc")
def _proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder like /proc, on a host with the user asterisk; others are given by their numbers."""

    def named(users: Iterable[str]) -> NamedUsers:
        return NamedUsers(ASTERISK, owners=frozenset(map(int, users)))

    monkeypatch.setattr(console, "find_named_users", named)
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/user").touch()
    return tmp_path


def run(proc: Path, monkeypatch: pytest.MonkeyPatch, user: int, *, root: str) -> Server:
    """Let one Asterisk of ``user`` run, with this host's root folder, one that root made, or its user's."""
    folder = proc / "7/ns"
    folder.mkdir(parents=True)
    if root == "its user's":
        (folder / "user").touch()
    else:
        (folder / "user").symlink_to(proc / "self/ns/user")
    same = root == "the host's"
    server = Server(7, user, user, (), (), "/usr/sbin/asterisk", same_root=same, same_network=True)

    def servers(_: Path) -> Iterator[Server]:
        yield server

    monkeypatch.setattr(console, "servers", servers)
    return server


@pytest.mark.parametrize(
    ("user", "root", "users", "counts"),
    [
        (0, "the host's", (), True),
        (ASTERISK, "the host's", (), True),
        (LOCAL, "the host's", (), False),
        (LOCAL, "the host's", (str(LOCAL),), True),
        (LOCAL, "root's", (), True),
        (LOCAL, "its user's", (), False),
    ],
)
def test_an_asterisk_of_a_local_user_does_not_count(
    proc: Path,
    monkeypatch: pytest.MonkeyPatch,
    user: int,
    root: str,
    users: tuple[str, ...],
    counts: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """While Asterisk is down, any user may start one; a container that root made has users of its own."""
    server = run(proc, monkeypatch, user, root=root)

    assert likely_servers(proc / "etc", proc, users) == ([server] if counts else [])
    assert bool(local_console(proc / "etc", proc, users).problem) is not counts
