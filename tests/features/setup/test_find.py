"""The findings of setup, as lines for the administrator."""

from pathlib import Path

import pytest
from attrs import evolve
from tests.features.setup.world import allow_any_reader, make_host

from ringfence.errors import SetupError
from ringfence.features.setup import find
from ringfence.features.setup.find import Owner, found_lines, service_owner


def test_the_user_of_the_service_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package makes this user; a venv needs systemd-sysusers."""
    monkeypatch.setattr(find, "SERVICE_USER", "root")
    assert service_owner() == Owner(0, 0)

    monkeypatch.setattr(find, "SERVICE_USER", "no-such-user")
    with pytest.raises(
        SetupError, match="there is no user no-such-user, as which the service runs; fix: install"
    ):
        service_owner()


@pytest.mark.kernel
def test_each_finding_is_a_line(tmp_path: Path) -> None:
    """The lines name the Asterisk, its layout, AMI, the firewall and fail2ban."""
    host = make_host(tmp_path)
    found = evolve(host.found_with_a_jail(), firewall="nftables (x)", notes=("a note",))

    assert [*found_lines(found)] == [
        "Asterisk  22.1.0, process 1, PJSIP",
        f"layout    plain Asterisk, {host.etc}",
        "AMI       off",
        "firewall  nftables (x)",
        "fail2ban  asterisk guards Asterisk, and is disabled after the proof",
        "note      a note",
    ]


@pytest.mark.kernel
def test_everything_is_found_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts come from their own modules; an error of one of them stops setup."""
    host = make_host(tmp_path, "freepbx")
    allow_any_reader(monkeypatch)
    monkeypatch.setattr(find, "SERVICE_USER", "root")
    monkeypatch.setattr(find, "find_asterisk", host.asterisk)
    monkeypatch.setattr(find, "_backend", lambda: "memory")
    monkeypatch.setattr(find, "networks_to_exempt", lambda _asterisk: ({}, ["a note"]))
    found = find.find(host.paths)

    assert (found.layout.name, found.manager.enabled) == ("FreePBX or Issabel", True)
    assert found.notes == ("a note",)
    assert not any(other.jails for other in found.others)
    (host.etc / "logger.conf").write_text("[", "utf-8")
    with pytest.raises(SetupError, match="Asterisk would refuse"):
        find.find(host.paths)
