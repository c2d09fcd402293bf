"""Requirements of a backend: missing ones are named, with the fix."""

from pathlib import Path

import pytest

from ringfence.errors import FirewallError, FirewallPermissionError, FirewallUnsupportedError
from ringfence.firewall.contract import Requirement
from ringfence.firewall.requirements import check_requirement, require_capabilities, why_no_ipv6

NAMES = ("CAP_NET_ADMIN", "CAP_NET_RAW")


def proc(folder: Path, held: str) -> Path:
    """Make a procfs in which a process holds these capabilities."""
    (folder / "self").mkdir()
    (folder / "self/status").write_text(f"Name:\tringfence\nCapEff:\t{held}\n", "ascii")
    return folder


@pytest.mark.parametrize(
    ("held", "missing"),
    [
        ("0000000000000000", "CAP_NET_ADMIN and CAP_NET_RAW"),
        ("0000000000001000", "CAP_NET_RAW"),
        ("0000000000002000", "CAP_NET_ADMIN"),
    ],
)
def test_missing_capabilities_are_named(tmp_path: Path, held: str, missing: str) -> None:
    """The error names every missing capability, and how to grant it."""
    with pytest.raises(FirewallPermissionError, match=rf"needs {missing}, .* or as root; in Docker: "):
        require_capabilities(proc(tmp_path, held), *NAMES)


def test_more_capabilities_are_allowed(tmp_path: Path) -> None:
    """A process may have more capabilities than the required ones."""
    require_capabilities(proc(tmp_path, "000001ffffffffff"), *NAMES)


def test_a_missing_procfs_is_an_error(tmp_path: Path) -> None:
    """Without procfs the error names its mount point."""
    with pytest.raises(FirewallUnsupportedError, match="procfs is needed at"):
        require_capabilities(tmp_path, *NAMES)


def test_a_requirement_is_checked() -> None:
    """A requirement has no problem if it is met; else the error's text is its problem."""

    def refuse() -> None:
        raise FirewallError("no, since not")

    assert check_requirement("a thing", lambda: None) == Requirement("a thing")
    assert check_requirement("a thing", refuse) == Requirement("a thing", "no, since not")


def test_a_host_without_ipv6_has_no_table_of_its_addresses(tmp_path: Path) -> None:
    """The kernel lists IPv6 addresses in procfs unless IPv6 is switched off."""
    assert why_no_ipv6(tmp_path) == "this host has no IPv6"
    (tmp_path / "self/net").mkdir(parents=True)
    (tmp_path / "self/net/if_inet6").touch()
    assert why_no_ipv6(tmp_path) is None
