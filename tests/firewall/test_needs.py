"""What a backend needs: named where it is lacking, with its mend."""

from pathlib import Path

import pytest

from ringfence.errors import FirewallError, FirewallPermissionError, FirewallUnsupportedError
from ringfence.firewall.contract import Part
from ringfence.firewall.needs import need, require_capabilities

NAMES = ("CAP_NET_ADMIN", "CAP_NET_RAW")


def proc(folder: Path, held: str) -> Path:
    """Make a procfs of a process that holds these capabilities."""
    (folder / "self").mkdir()
    (folder / "self/status").write_text(f"Name:\tringfence\nCapEff:\t{held}\n", "ascii")
    return folder


@pytest.mark.parametrize(
    ("held", "lacking"),
    [
        ("0000000000000000", "CAP_NET_ADMIN and CAP_NET_RAW"),
        ("0000000000001000", "CAP_NET_RAW"),
        ("0000000000002000", "CAP_NET_ADMIN"),
    ],
)
def test_what_is_lacking_is_named(tmp_path: Path, held: str, lacking: str) -> None:
    """Every capability that is not in force is in the error, and what grants it."""
    with pytest.raises(FirewallPermissionError, match=rf"needs {lacking}, .* by hand: run as root"):
        require_capabilities(proc(tmp_path, held), *NAMES)


def test_nothing_lacks_where_all_is_held(tmp_path: Path) -> None:
    """Who holds what is asked for may hold more."""
    require_capabilities(proc(tmp_path, "000001ffffffffff"), *NAMES)


def test_without_procfs_nobody_can_tell(tmp_path: Path) -> None:
    """Where procfs is not mounted the error says so."""
    with pytest.raises(FirewallUnsupportedError, match="procfs is needed at"):
        require_capabilities(tmp_path, *NAMES)


def test_a_need_is_a_part() -> None:
    """Met it lacks nothing; else it lacks what the error says."""

    def refuse() -> None:
        raise FirewallError("no, since not")

    assert need("a thing", lambda: None) == Part("a thing")
    assert need("a thing", refuse) == Part("a thing", "no, since not")
