"""The texts for Asterisk and logrotate, against those of contrib/asterisk."""

from ipaddress import ip_network
from pathlib import Path

from tests.docs.pages import text_of

from ringfence.features.setup.texts import log_channel, logrotate, manager_user
from ringfence.host.asterisk_conf import AsteriskFiles, Section
from ringfence.values.secret import Secret

LOG = Path("/var/log/ringfence/ringfence")


def sections(folder: Path, text: str, head: str = "") -> list[Section]:
    """Return every section of a text with all its options."""
    (folder / "x.conf").write_text(head + text, "utf-8")
    found = AsteriskFiles(folder).read("x.conf", lambda _section, _name: True)
    assert found is not None
    return [section for section in found.sections if section.options]


def test_the_manager_user_has_the_options_of_the_documented_one(tmp_path: Path) -> None:
    """Rights, networks and timeouts are the same as in contrib/asterisk/ringfence.manager.conf."""
    documented = text_of("contrib/asterisk/ringfence.manager.conf")
    own = manager_user(Secret("CHANGE-THIS-SECRET"))

    assert sections(tmp_path, own) == sections(tmp_path, documented)
    filtered = manager_user(Secret("CHANGE-THIS-SECRET"), web=True)
    wanted = sections(tmp_path, documented.replace(";eventfilter", "eventfilter"))
    assert [sorted(section.options) for section in sections(tmp_path, filtered)] == [
        sorted(section.options) for section in wanted
    ]


def test_other_networks_may_log_in_if_they_are_named(tmp_path: Path) -> None:
    """The address of this host in a container's network is permitted with its mask."""
    [user] = sections(tmp_path, manager_user(Secret("x"), [ip_network("172.17.0.1"), ip_network("fd00::1")]))

    assert user.values("permit")[2:] == ["172.17.0.1/255.255.255.255", "fd00::1/128"]


def test_the_log_channel_has_the_options_of_the_documented_one(tmp_path: Path) -> None:
    """It adds the same lines to the same sections."""
    head = "[general]\n[logfiles]\n"
    documented = text_of("contrib/asterisk/ringfence.logger.conf")

    assert sections(tmp_path, log_channel(LOG), head) == sections(tmp_path, documented, head)


def test_the_rotation_is_the_documented_one() -> None:
    """Apart from comments, the text is that of contrib/asterisk/ringfence.logrotate."""
    documented = text_of("contrib/asterisk/ringfence.logrotate")

    drop = ("--reuid=asterisk", "--regid=asterisk", "--clear-groups", "--no-new-privs")
    command = ("setpriv", *drop, "/usr/sbin/asterisk", "-rx", "logger reload")

    assert _lines(logrotate(LOG, "asterisk", command)) == _lines(documented)
    assert "'/opt/x; y'" in logrotate(LOG, "asterisk", ["asterisk", "-C", "/opt/x; y"])
    assert "postrotate" not in logrotate(LOG, "asterisk", [])


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if not line.lstrip().startswith("#")]
