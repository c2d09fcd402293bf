"""Asterisks in containers, as the daemon's periodic look at them finds them."""

from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.guard.test_reload import Reloading

from ringfence.guard.source_manager import SourceManager


@pytest.mark.parametrize(("named", "elsewhere"), [(["172.17.0.5"], True), ([], False)])
def test_connections_of_an_asterisk_elsewhere_are_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: list[str], *, elsewhere: bool
) -> None:
    """AMI names an address of Asterisk that is not this host's own: its connections are not this host's."""
    monkeypatch.setattr(SourceManager, "addresses", property(lambda _: frozenset(map(ip_address, named))))
    daemon = Reloading(tmp_path).daemon

    daemon._look_at_asterisks()

    assert daemon._connections.elsewhere is elsewhere
