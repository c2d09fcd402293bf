"""A real Kamailio, a SIP proxy in front of the laboratory's Asterisk, run from a tree that is never changed.

    client ──── 198.18.0.1:5070  Kamailio  127.0.0.1:5070 ──── 198.18.0.1:5060 Asterisk

The tree is a minimal Debian with Kamailio in it, made by ``make lab``. Asterisk sees every client under the
address 127.0.0.1.
"""

import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import netns
from tests.support.asterisk import tree_of
from tests.support.network import PBX_IPV4, Network, inside, socket_in

PORT = 5070
TARGET = ("--target", f"{PBX_IPV4}:{PORT}")
"""The options of the SIP client that send its requests through the proxy."""

_BOOT_SECONDS = 20.0
_CONFIGURATION = """\
debug=1
log_stderror=yes
fork=yes
children=2
tcp_children=2
auto_aliases=no
{listen}
loadmodule "tm.so"
loadmodule "pv.so"
loadmodule "sl.so"
modparam("tm", "fr_timer", 3000)
request_route {{
    $du = "sip:{pbx}:{asterisk};transport={hop}";
    $fs = "{hop}:127.0.0.1:{port}";
    t_relay();
}}
"""
_LAUNCH = """\
set -eu
mount --bind "$2" "$1/mnt"
mount --bind /dev "$1/dev"
mount -t proc proc "$1/proc"
exec chroot "$1" /usr/sbin/kamailio -DD -E -f /mnt/kamailio.cfg -P /mnt/kamailio.pid -Y /mnt -m 32 -M 4
"""


def why_no_kamailio() -> str:
    """Return why Kamailio cannot be run here; empty if it can. It also needs root."""
    tree = tree_of("kamailio")
    return "" if (tree / "usr/sbin/kamailio").is_file() else f"`make lab` makes {tree}"


class Kamailio:
    """A Kamailio that runs while the context lasts: ``with Kamailio(lab.network, tmp_path): …``.

    ``hop`` is the transport to Asterisk, and ``asterisk`` its port. ``streams``: Kamailio listens on TCP too.
    """

    def __init__(
        self,
        network: Network,
        folder: Path,
        *,
        hop: str = "udp",
        asterisk: int = 5060,
        streams: bool = True,
    ) -> None:
        protocols = ("udp", "tcp") if streams else ("udp",)
        listen = "\n".join(
            f"listen={protocol}:{address}:{PORT}"
            for protocol in protocols
            for address in (PBX_IPV4, "127.0.0.1")
        )
        self._streams = streams
        self._network = network
        self._folder = folder / "kamailio"
        self._text = _CONFIGURATION.format(pbx=PBX_IPV4, port=PORT, asterisk=asterisk, hop=hop, listen=listen)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of Kamailio's main process."""
        assert self._process is not None, "Kamailio was never started"
        return self._process.pid

    def __enter__(self) -> Self:
        self._folder.mkdir()
        self._folder.chmod(0o755)
        (self._folder / "kamailio.cfg").write_text(self._text, "utf-8")
        tree = str(tree_of("kamailio"))
        launch = inside(self._network.pbx, "sh", "-c", _LAUNCH, "sh", tree, str(self._folder))
        with (self._folder / "console").open("ab") as console:
            self._process = subprocess.Popen(
                launch, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + _BOOT_SECONDS
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError((self._folder / "console").read_text("utf-8", "replace")[-2000:])
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _accepts(self) -> bool:
        """Whether Kamailio's TCP port accepts connections, which it opens last, or its UDP port is bound."""
        if self._streams:
            with socket_in(self._network.pbx) as tried:
                return tried.connect_ex(("127.0.0.1", PORT)) == 0
        with netns.inside(self._network.pbx):
            bound = Path("/proc/thread-self/net/udp").read_text("ascii")
        return f" 0100007F:{PORT:04X} " in bound
