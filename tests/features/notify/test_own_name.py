"""Mail from a host whose own name cannot be resolved, and whose name server never answers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel

MOST_SECONDS = 2.0
"""A look-up waits for five seconds and more."""

# The name server's address is at a cable whose other end takes no packet for it: every query is lost.
_UNKNOWN_HOST = """\
set -eu
hostname "$1"
ip link set lo up
ip link add lost type veth peer name end
ip address add 198.18.0.1/24 dev lost
ip link set lost up
ip link set end up
ip neighbour add 198.18.0.53 lladdr 02:00:00:00:00:01 dev lost
mount --bind "$2/resolv.conf" /etc/resolv.conf
mount --bind "$2/hosts" /etc/hosts
shift 2
exec "$@"
"""

_LOOK_UP = """\
import socket, time
began = time.monotonic()
socket.getfqdn()
print(time.monotonic() - began)
"""

_SEND = """\
import socket, time
from tests.features.notify.samples import WALL, ban, content
from tests.support.peers import raw_server
from ringfence.features.notify.settings import MailAddress, MailSettings
from ringfence.config.converters import Port
from ringfence.features.notify import mail, notifications
from ringfence.features.notify.delivery import channel_as_json

said = []
def serve(connection):
    for answer in (b"220 x", b"250 x", b"250 ok", b"250 ok", b"354 go", b"250 accepted", b"221 bye"):
        connection.sendall(answer + b"\\r\\n")
        said.append(connection.recv(65_536).decode())

with raw_server(serve) as port:
    channel = channel_as_json(MailSettings(to=(MailAddress("root"),), port=Port(port)))
    found = content(notifications.of_ban(ban(), WALL))
    began = time.monotonic()
    mail.send(channel, found, socket.gethostname())
    took = time.monotonic() - began
print(said[0].strip(), took)
"""


def unknown_host(folder: Path, name: str, program: str) -> list[str]:
    """Run a Python program where the host's name cannot be resolved; return the words that it printed."""
    (folder / "resolv.conf").write_text("nameserver 198.18.0.53\n", "ascii")
    (folder / "hosts").write_text("127.0.0.1 localhost\n", "ascii")
    done = subprocess.run(
        [
            *("unshare", "--net", "--mount", "--uts", "--propagation", "private"),
            *("sh", "-c", _UNKNOWN_HOST, "sh", name, str(folder), sys.executable, "-c", program),
        ],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.split()


def test_the_look_up_of_the_own_name_waits_there(tmp_path: Path) -> None:
    """The surroundings of the next test are those in which smtplib's own greeting hangs."""
    [seconds] = unknown_host(tmp_path, "pbx-without-a-name", _LOOK_UP)

    assert float(seconds) > MOST_SECONDS


@pytest.mark.parametrize(
    ("name", "greeting"), [("pbx-without-a-name", "[127.0.0.1]"), ("pbx.example.net", "pbx.example.net")]
)
def test_a_mail_does_not_wait_for_the_own_name(tmp_path: Path, name: str, greeting: str) -> None:
    """The greeting has a full name of the host as it is, or the address of the connection (RFC 5321)."""
    verb, said, seconds = unknown_host(tmp_path, name, _SEND)

    assert (verb.lower(), said) == ("ehlo", greeting)
    assert float(seconds) < MOST_SECONDS
