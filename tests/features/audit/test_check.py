"""Findings of ``check`` about the Asterisk of this host: calls of guests, rights of our manager, pages."""

from pathlib import Path

import pytest
from tests.support.firewalls import firewall

from ringfence.config.loader import parse
from ringfence.config.schema import AsteriskSettings, Settings, WireSettings
from ringfence.features.audit.check import guest_findings, page_findings, rights_findings
from ringfence.features.ration.settings import RationSettings
from ringfence.firewall.limits import LimitMode
from ringfence.host.asterisk_conf import AsteriskFiles


def test_calls_without_a_password_need_room_in_the_ration() -> None:
    """With such calls the key is named, with the key all is well, and the key alone is for nothing."""
    on, off = RationSettings(), RationSettings(asking=LimitMode.OFF)
    cases = [
        (
            on,
            False,
            "sip.conf [x]",
            ["--  guests: Asterisk takes calls without a password (sip.conf [x]), and"],
        ),
        (on, True, "sip.conf [x]", ["ok  guests: strangers may call (sip.conf [x]), and"]),
        (on, True, "", ["--  guests: strangers may ask 8 times as much, but no account"]),
        (on, False, "", []),
        (off, False, "sip.conf [x]", []),
    ]
    for ration, guests, by, expected in cases:
        settings = Settings((AsteriskSettings(guests=guests),), firewall=firewall(ration=ration))
        found = [finding.line for finding in guest_findings(settings, by)]
        assert [line[: len(begin)] for line, begin in zip(found, expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("rights", "lacking"),
    [
        ("read=security,system\nwrite=reporting", ""),
        ("read=all\nwrite=all", ""),
        ("read=security,system\nwrite=", "write = reporting"),
        ("read=security", "read = system, write = reporting"),
        ("", "read = security, read = system, write = reporting"),
    ],
)
def test_rights_that_our_user_lacks(tmp_path: Path, rights: str, lacking: str) -> None:
    """Missing rights are reported with the effect and the fix; for an unknown user nothing is."""
    (tmp_path / "manager.conf").write_text(f"[general]\nenabled=yes\n[own]\nsecret=x\n{rights}\n", "utf-8")
    found = [finding.line for finding in rights_findings(AsteriskFiles(tmp_path), "own")]

    assert [line.partition("lacks ")[2].partition(":")[0] for line in found] == ([lacking] if lacking else [])
    assert list(rights_findings(AsteriskFiles(tmp_path), "other")) == []


def test_whether_pages_count(tmp_path: Path) -> None:
    """If Asterisk's HTTPS server is open, the setting of its pages is named with its effect."""
    web = "[general]\nenabled=yes\ntlsenable=yes\ntlsbindaddr={}:8090\n"
    (tmp_path / "http.conf").write_text(web.format("0.0.0.0"), "utf-8")

    def lines(settings: Settings) -> list[str]:
        return [finding.line for finding in page_findings(settings, AsteriskFiles(tmp_path))]

    pages = AsteriskSettings(wire=WireSettings(https_pages=True))
    [counted], [hiding] = lines(Settings()), lines(Settings(asterisk=(pages,)))
    assert counted.startswith("ok  wire: HTTPS on port 8090: strangers may read no pages")
    assert "https_pages = true in [asterisk.wire]" in counted
    assert hiding.startswith(
        "--  wire: HTTPS on port 8090: strangers may read pages, and guesses by WSS can hide"
    )
    exporting = {"wire": {"https_pages": True}, "hep": {"enabled": True}}
    assert lines(parse({"asterisk": [exporting]}, "", {}, secrets=False)) == []
    assert lines(Settings().without_wire()) == []
    (tmp_path / "http.conf").write_text(web.format("127.0.0.1"), "utf-8")
    assert lines(Settings()) == []
