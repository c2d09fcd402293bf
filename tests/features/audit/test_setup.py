"""Notes of ``setup`` about Asterisk's accounts."""

from pathlib import Path

from ringfence.features.audit.setup import notes
from ringfence.host.asterisk_conf import AsteriskFiles
from ringfence.host.console import NoConsole


def test_calls_without_a_password_are_noted(tmp_path: Path) -> None:
    """If strangers may call, setup names what lets them, and the key; otherwise it is silent."""
    console = NoConsole("no Asterisk")
    assert [*notes(AsteriskFiles(tmp_path), console)] == []
    endpoints = "[anonymous]\ntype = endpoint\ncontext = public\n[100]\ntype = endpoint\nauth = 100\n"
    (tmp_path / "pjsip.conf").write_text(endpoints, "utf-8")
    (tmp_path / "modules.conf").write_text("[modules]\nautoload = yes\n", "utf-8")
    first, *others = notes(AsteriskFiles(tmp_path), console)
    assert first.startswith("Asterisk takes calls without a password (pjsip.conf [anonymous]): ")
    assert "guests = true in [[asterisk]]" in others[-1]
