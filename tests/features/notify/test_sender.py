"""The child process: its result, its time limit, and the places of banned addresses."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.features.notify.samples import WALL, ban, content, report_content
from tests.support.mmdb import Record, write
from tests.support.peers import Mailbox, free_port, mail_server, raw_server
from tests.support.programs import program_service

from ringfence.features.notify import notifications
from ringfence.features.notify.sender import add_locations

CONTENT = content(notifications.of_ban(ban(7), WALL))
DE: Record = {"country": {"iso_code": "DE"}}
NUMBER: Record = {
    "autonomous_system_number": 64496,
    "autonomous_system_organization": "Evil\x1b[2J" + "x" * 99,
}


def send(request: object, *prefix: str) -> dict[str, Any]:
    """Run the child with a request, and return its result."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "ringfence.features.notify.sender"],
        input=json.dumps(request).encode(),
        capture_output=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def mail(port: int, timeout: float = 60.0) -> dict[str, Any]:
    """Return a request for a mail."""
    server = {"host": "127.0.0.1", "port": port, "security": "none", "username": None, "timeout": timeout}
    channel = {"kind": "mail", "to": ["root"], "sender": None, **server}
    return {"channel": channel, "content": CONTENT, "host": "h", "databases": []}


@pytest.fixture(name="service")
def _service(tmp_path: Path) -> Iterator[str]:
    """Run the service for programs."""
    with program_service(tmp_path) as path:
        yield path


def hook(service: str, command: list[str], timeout: float = 60.0) -> dict[str, Any]:
    """Return a request for a hook."""
    channel = {"kind": "hook", "command": command, "timeout": timeout, "socket": service}
    return {"channel": channel, "content": CONTENT, "host": "h", "databases": []}


def test_the_result_is_that_of_the_channel(service: str) -> None:
    """A success and a failure have the answer of the channel."""
    port = free_port()

    assert send(hook(service, ["/bin/true"])) == {"ok": True, "text": "/bin/true ended with 0"}
    assert send(mail(port)) == {"ok": False, "text": f"127.0.0.1:{port}: Connection refused"}


def test_a_report_is_sent_by_the_child() -> None:
    """The child writes the text and the page."""
    with mail_server(Mailbox()) as box:
        result = send({**mail(box.port), "content": report_content()})

    assert result == {"ok": True, "text": f"127.0.0.1:{box.port} accepted it"}
    assert [part.get_content_type() for part in box.mails[0].iter_parts()] == ["text/plain", "text/html"]


def test_the_child_does_not_load_the_page_or_rich() -> None:
    """An ordinary message needs neither the live page nor the library of the terminal."""
    heavy = {"rich", "jinja2", "starlette", "statistics"}
    code = f"import ringfence.features.notify.sender, sys; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert done.stdout == "set()\n"


def test_a_program_that_hangs_ends_in_time(service: str) -> None:
    """The timeout of the channel bounds the whole attempt."""
    assert send(hook(service, ["/bin/sleep", "60"], 0.5)) == {"ok": False, "text": "no answer within 0 s"}


def test_a_server_that_answers_slowly_ends_in_time() -> None:
    """A byte now and then does not extend the time, although each read is in time."""

    def drip(connection: Any) -> None:  # noqa: ANN401 - a socket
        connection.settimeout(0.05)
        for _ in range(100):
            try:
                connection.sendall(b"220-x\r\n")
                connection.recv(1)
            except TimeoutError:
                continue
            except OSError:
                return

    with raw_server(drip) as port:
        result = send(mail(port, 1.0))
    assert not result["ok"]


@pytest.mark.parametrize("version", [4, 6])
def test_the_places_of_banned_addresses(tmp_path: Path, version: int) -> None:
    """Each ban gets country, network number and organisation, as far as the databases have them."""
    countries = write(tmp_path / "country.mmdb", [("198.18.0.0/16", DE)], version=version)
    numbers = write(tmp_path / "asn.mmdb", [("198.18.0.7/32", NUMBER)], version=version)
    found = content(*[notifications.of_ban(ban(at), WALL) for at in (7, 8)])

    add_locations(found, [countries, tmp_path / "none", numbers])

    places = [
        {key: event.get(key) for key in ("country", "asn", "organisation")} for event in found["events"]
    ]
    organisation = "Evil\\x1b[2J" + "x" * 56
    assert places == [
        {"country": "DE", "asn": "AS64496", "organisation": organisation},
        {"country": "DE", "asn": None, "organisation": None},
    ]
