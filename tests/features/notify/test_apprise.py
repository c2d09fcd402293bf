"""The real Apprise, which posts to a local HTTP server."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.features.notify.samples import HOSTILE, WALL, alarm, ban, content, hostile_content
from tests.support.peers import free_port, web_server
from tests.support.programs import program_service

from ringfence.alarm_codes import AlarmCode
from ringfence.features.notify import notifications, programs

COMMAND = str(Path(sys.executable).with_name("apprise"))


@pytest.fixture(autouse=True)
def _service(tmp_path: Path) -> Iterator[None]:
    """Run the service for programs."""
    with program_service(tmp_path):
        yield


def channel(folder: Path, port: int, *, kind: str = "json", tag: str | None = None) -> dict[str, Any]:
    """Return the channel of a service on a local port."""
    file = folder / "apprise.yml"
    file.write_text(f"urls:\n  - {kind}://127.0.0.1:{port}/:\n      tag: oncall\n", "utf-8")
    if tag is None:
        file.write_text(f"urls:\n  - {kind}://127.0.0.1:{port}/\n", "utf-8")
    service = {"socket": str(folder / "notify.socket"), "timeout": 60.0}
    return {"command": COMMAND, "config": str(file), "tag": tag, **service}


def test_a_message_arrives(tmp_path: Path) -> None:
    """Title, text and type are those of the message."""
    found = content(notifications.of_alarm(alarm(AlarmCode.SOURCE_SILENT, "pbx/ami", "it is gone")))
    with web_server() as (port, posted):
        answer = programs.send_by_apprise(channel(tmp_path, port), found, "pbx1")

    assert answer == f"{COMMAND} accepted it"
    assert [(one["title"], one["type"]) for one in posted] == [
        ("[ringfence pbx1] alarm source.silent pbx/ami", "failure")
    ]
    assert "source.silent pbx/ami: it is gone" in posted[0]["message"]


def test_only_services_with_the_tag_get_it(tmp_path: Path) -> None:
    """A tag selects services of Apprise's file."""
    found = content(notifications.of_ban(ban(), WALL))
    with web_server() as (port, posted):
        programs.send_by_apprise(channel(tmp_path, port, tag="oncall"), found, "h")
        with pytest.raises(ValueError, match="apprise ended with"):
            programs.send_by_apprise(channel(tmp_path, port, tag="oncall") | {"tag": "other"}, found, "h")

    assert len(posted) == 1


def test_hostile_names_change_nothing(tmp_path: Path) -> None:
    """The message to the service has no markup, mention, link or control character of a sender."""
    names = [one for one in HOSTILE if len(one) < 100]
    with web_server() as (port, posted):
        programs.send_by_apprise(channel(tmp_path, port), hostile_content(*names), "h")
    [message] = posted

    assert message["message"].count(": an account ") == len(names)
    assert all(line.isprintable() for line in message["message"].split("\n"))
    assert not set(message["message"]) & set("<>&*~`[]|@#")
    assert "://" not in message["message"]


def test_a_service_that_refuses_is_an_error(tmp_path: Path) -> None:
    """So is one that is down, and a missing file."""
    found = content(notifications.of_ban(ban(), WALL))
    with web_server(500) as (port, _), pytest.raises(ValueError, match="apprise ended with 1"):
        programs.send_by_apprise(channel(tmp_path, port), found, "h")
    with pytest.raises(ValueError, match="apprise ended with 1"):
        programs.send_by_apprise(channel(tmp_path, free_port()), found, "h")
    with pytest.raises(ValueError, match="none: No such file or directory"):
        programs.send_by_apprise(channel(tmp_path, port) | {"config": f"{tmp_path}/none"}, found, "h")
