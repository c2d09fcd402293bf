"""The manager user: its rights, and that a real Asterisk accepts it and sends it security events."""

import asyncio
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.asterisk import Asterisk, tree_of
from tests.support.asterisk_files import MANAGER_PORT
from tests.support.lab import RELEASES
from tests.support.netns import inside
from tests.support.network import Network, socket_in
from tests.support.sources import Phones

from ringfence.sources.ami import AmiSource, AmiTarget
from ringfence.values.friend import Roster
from ringfence.values.secret import Secret

FRAGMENT = (Path(__file__).parents[2] / "contrib/asterisk/ringfence.manager.conf").read_text("utf-8")
PLACEHOLDER = "CHANGE-THIS-SECRET"
NAME = "fragment"
"""The laboratory has a manager user called ringfence already."""


@pytest.fixture(params=sorted(RELEASES))
def pbx(request: pytest.FixtureRequest) -> Iterator[Asterisk]:
    """Yield each Asterisk with the fragment in its manager.conf."""
    user = FRAGMENT.replace(PLACEHOLDER, "sesame").replace("[ringfence]", f"[{NAME}]")
    with (
        Network() as network,
        Asterisk(
            tree_of(request.param), network.pbx, RELEASES[request.param], extra={"manager.conf": user}
        ) as asterisk,
    ):
        yield asterisk


def test_the_secret_must_be_changed() -> None:
    """The placeholder appears once, as the secret, so that one replacement is enough."""
    assert FRAGMENT.count(PLACEHOLDER) == 1
    assert f"\nsecret = {PLACEHOLDER}\n" in FRAGMENT


@pytest.mark.asterisk
def test_asterisk_grants_what_is_needed_and_no_more(pbx: Asterisk) -> None:
    """The user may read the classes security and system and write reporting; it receives security events."""
    shown = pbx.cli(f"manager show user {NAME}")
    with socket_in(pbx.namespace) as connection:
        connection.settimeout(10)
        connection.connect(("127.0.0.1", MANAGER_PORT))
        connection.sendall(f"Action: Login\r\nUsername: {NAME}\r\nSecret: sesame\r\n\r\n".encode())
        received = _read_until(connection, b"Event: SuccessfulAuth")

    assert _shown(shown, "read perm") == {"system", "security"}
    assert _shown(shown, "write perm") == {"reporting"}
    assert b"Message: Authentication accepted" in received


@pytest.mark.asterisk
def test_a_source_lacks_nothing_with_it(pbx: Asterisk) -> None:
    """This user can request the phones and trunks, and receives their changes."""

    async def main() -> AmiSource:
        target = AmiTarget("pbx", "127.0.0.1", MANAGER_PORT, NAME, Secret("sesame"))
        source = AmiSource(target, lambda _events, _now: None, listener=phones)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            task = group.create_task(source.run())
            await source.roster_ready.wait()
            task.cancel()
        return source

    phones = Phones()
    with inside(pbx.namespace):
        source = asyncio.run(main())

    assert source.refused == ()
    assert phones.rosters == [Roster("pbx", contacts=(), trunks=())]


@pytest.mark.asterisk
@pytest.mark.parametrize("release", sorted(RELEASES))
def test_the_line_added_to_manager_conf_does_no_harm_alone(release: str) -> None:
    """After an uninstallation, when the included file is gone, AMI works as before."""
    page = (Path(__file__).parents[2] / "docs/install.md").read_text("utf-8")
    line = re.search(r"printf '\\n(#\w*include .*?)\\n' >> /etc/asterisk/manager\.conf", page)
    assert line is not None

    with (
        Network() as network,
        Asterisk(
            tree_of(release), network.pbx, RELEASES[release], extra={"manager.conf": f"{line[1]}\n"}
        ) as asterisk,
    ):
        assert "ringfence" in asterisk.cli("manager show users")


def _shown(text: str, field: str) -> set[str]:
    match = re.search(rf"{field}: *(\S+)", text)
    assert match is not None, text
    return set(match[1].split(","))


def _read_until(connection: socket.socket, wanted: bytes) -> bytes:
    received = b""
    while wanted not in received:
        part = connection.recv(65536)
        assert part, f"the connection was closed: {received!r}"
        received += part
    return received
