r"""Recipes of attackers, and habits of phones, that might get the innocent banned, on a real Asterisk.

    with Lab.made("16", configured("16")) as lab, guarded(lab, folder) as guard:
        for recipe in (*FRAMES["16"], *HABITS["16"]):
            recipe.run(Scene(lab, guard, "16", "198.19.150"))

A recipe returns the addresses that may not be blamed: in ``FRAMES`` they have sent no guess, and in
``HABITS`` they belong to phones and offices. It fails if the laboratory does not do what the recipe needs.
``blamed`` returns the bans and alarms that blame such an address.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from urllib.parse import quote

from attrs import evolve, frozen
from tests.support import netns, open_pbx
from tests.support.asterisk import Asterisk, tree_of
from tests.support.asterisk_files import PASSWORD, Kind
from tests.support.daemon import Guard, until
from tests.support.lab import Lab
from tests.support.netns import neighbour, run
from tests.support.network import PBX_IPV4, PBX_IPV6, Network, inside
from tests.support.phones import Phone, phones_at
from tests.support.sip_raw import Raw, calling, guesses, request_of, udp_socket
from tests.support.sip_wire import challenge_of

_DEFENCES = ("evidence.forged", "evidence.unconfirmed")
GUESSES = 8
"""More than the threshold for strangers."""
NOBODY = "65534"
_SIP = 5060
_OTHER_SERVER = 5070
_LAMPS = (
    f"[lamp]\ntype=friend\nhost=dynamic\nsecret={PASSWORD}\nallowsubscribe=no\ncontext=lamps\n"
    "transport=udp,tcp,ws\n"
    # ``qualify`` is off, so Asterisk shows only that the peer is registered.
    f"[plain]\ntype=friend\nhost=dynamic\nsecret={PASSWORD}\ncontext=phones\nqualify=no\n"
)
_FORBIDDEN = "[lamps]\nexten => 100,1,Hangup(21)\n\n[phones](+)\nexten => 900,1,Hangup(21)\n"
_ACCOUNTS = {"22": b"alice", "16": b"carol"}


def configured(release: str) -> dict[str, str]:
    """Return the configuration of a laboratory's Asterisk: every transport, lamps and forbidden numbers."""
    texts = open_pbx.configured(release)
    for name, text in (("extensions.conf", _FORBIDDEN), *([("sip.conf", _LAMPS)] if release == "16" else [])):
        texts[name] = texts.get(name, "") + "\n" + text
    return texts


@frozen
class Scene:
    """Where a recipe runs: an Asterisk with its daemon, and the first three numbers of its addresses."""

    lab: Lab
    guard: Guard
    release: str
    network: str

    def at(self, host: int) -> str:
        """Return one of its addresses."""
        return f"{self.network}.{host}"

    def beside(self, host: int) -> str:
        """Return an address of another network, which has no innocent address."""
        network, _, third = self.network.rpartition(".")
        return f"{network}.{(int(third) + 128) % 256}.{host}"

    @property
    def account(self) -> bytes:
        """An account of the channel driver at port 5060."""
        return _ACCOUNTS[self.release]

    @property
    def foreign(self) -> int:
        """The number of answers that the wire ignored, because no Asterisk sent them."""
        [wire] = [source for source in self.guard.ask("status")["sources"] if source["name"] == "wire"]
        return int(wire["foreign"])

    def befriend(self, phone: Phone, address: str) -> None:
        """Register a phone, and wait until its address is a friend."""
        assert phone.register(expires=600) == 200
        until(lambda: address in {row["address"] for row in self.guard.ask("friends")}, "the friend")


@frozen
class Recipe:
    """A recipe: its letter in the tables, and the function that runs it and returns the innocent."""

    letter: str
    what: str
    run: Callable[[Scene], Collection[str]]
    settles: float = 1.5
    """Seconds until the daemon has judged everything: a report waits one second for a confirmation."""
    true: str = ""
    """The code of an alarm that is right about an address of the recipe."""

    def settle(self, guard: Guard) -> None:
        """Wait until the daemon has judged everything."""
        events = -1
        while events != (events := sum(source["events"] for source in guard.ask("status")["sources"])):
            time.sleep(self.settles)


def blamed(guard: Guard, innocent: Collection[str], true: str = "") -> list[str]:
    """Return the bans that include an innocent address, and the alarms that blame one.

    An alarm about forged or unconfirmed evidence defends the address that it names. ``true`` is the code of
    an alarm that is right.
    """
    alarms = [
        alarm
        for alarm in guard.status()["alarms"]
        if not alarm["code"].startswith(_DEFENCES) and alarm["code"] != true
    ]
    found = bans_of(guard, innocent)
    for text in innocent:
        found += [f"{alarm['code']} {text}" for alarm in alarms if text in alarm["subject"].split()]
    return found


def bans_of(guard: Guard, innocent: Collection[str]) -> list[str]:
    """Return the bans that include an innocent address."""
    networks = [ip_network(row["address"]) for row in guard.bans()]
    found = []
    for address in map(ip_address, innocent):
        found += [f"ban of {one} with {address}" for one in networks if address in one]
    return found


# -- (h) two Vias


def forward(proxy: socket.socket) -> bool:
    """Forward a response to the second Via, as a stateless proxy does (RFC 3261, 16.7); return whether."""
    try:
        answer = proxy.recv(65_535)
    except TimeoutError:
        return False
    head, _, rest = answer.partition(b"\r\nVia: ")
    _, via, rest = rest.partition(b"\r\nVia: ")
    if via:
        host, _, port = rest.partition(b";")[0].split()[-1].partition(b":")
        proxy.sendto(head + via + rest, (host.decode(), int(port)))
    return bool(via)


def guesses_by_way_of(scene: Scene, proxy: str, attacker: str) -> int:
    """Ask with a Via of a proxy above the attacker's own, and guess with the nonces that it forwards.

    Return the number of guesses; a ban of the attacker ends them. The attacker waits for the next second
    before each guess: PJSIP would otherwise send the attacker the same nonce, and the proxy would not be its
    only receiver.
    """
    with udp_socket(scene.lab, proxy) as there, udp_socket(scene.lab, attacker) as back:
        host, port = back.getsockname()
        own = f"{proxy}:{there.getsockname()[1]}"
        for end in (there, back):
            end.settimeout(1.0)
        for number in range(GUESSES):
            until(lambda: time.time() % 1 < 0.3, "the beginning of a second")
            via = f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bKback\r\n".encode()
            asking = Raw(from_user=scene.account, via=f";maddr={proxy}".encode(), vias=via)
            asking = asking.named(f"two-vias-{host}-{number}")
            back.sendto(asking.encode(own, "UDP"), (PBX_IPV4, _SIP))
            forward(there)
            try:
                challenge = challenge_of(back.recv(65_535))
            except TimeoutError:
                return number
            assert challenge is not None
            time.sleep(1.1)
            guess = evolve(asking, via=b"", vias=b"").answering(challenge, f"wrong-{number}")
            back.sendto(guess.encode(f"{host}:{port}", "UDP"), (PBX_IPV4, _SIP))
            with suppress(TimeoutError):
                back.recv(65_535)
    return GUESSES


def _two_vias(scene: Scene) -> Collection[str]:
    """The receiver of the challenges is a proxy anywhere in the world."""
    proxy = scene.at(1)
    assert guesses_by_way_of(scene, proxy, scene.at(2)) >= GUESSES - 4
    return {proxy}


# -- (i) a relay on the host of the PBX

_RELAY = """
import socket, sys
here, port, victims = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
for number, victim in enumerate(victims):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relay:
        relay.bind((here, port + number))
        for guess in range(8):
            relay.sendto(
                b"SIP/2.0 401 Unauthorized\\r\\n"
                b"Via: SIP/2.0/UDP %s:5062;rport=5062;received=%s;branch=z9hG4bK%d\\r\\n"
                b"Call-ID: \\xff%d@relay\\r\\nFrom: <sip:alice@%s>;tag=a\\r\\n"
                b"To: <sip:alice@%s>;tag=b\\r\\nCSeq: 1 REGISTER\\r\\n"
                b'WWW-Authenticate: Digest realm="asterisk",nonce="1790000000/%032x",'
                b'opaque="0123456789abcdef",algorithm=md5,qop="auth"\\r\\n'
                b"Server: Asterisk\\r\\nContent-Length:  0\\r\\n\\r\\n"
                % (victim.encode(), victim.encode(), guess, guess, here.encode(), here.encode(), guess),
                (victim, 5062),
            )
"""


def as_nobody(namespace: str, script: str, *arguments: str) -> list[str]:
    """Return the command line of a Python script that runs as another user than Asterisk's."""
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    return inside(namespace, *user, sys.executable, "-I", "-c", script, *arguments)


def _relay(scene: Scene) -> Collection[str]:
    """Another user's program sends text like Asterisk's refusals to three strangers."""
    strangers = [scene.at(number) for number in range(1, 4)]
    before = scene.foreign
    run(*as_nobody(scene.lab.network.pbx, _RELAY, PBX_IPV4, "45000", *strangers))
    until(lambda: scene.foreign >= before + 24, "the relay's answers on the wire")
    return strangers


# -- (j) Asterisk in a container

HOST, CONTAINER, BESIDE = "10.9.9.1", "10.9.9.2", "10.9.9.3"
"""Addresses on a bridge: the host's, the one of Asterisk's container, and that of another container."""
_PUBLISHED = f"""\
table ip published {{
    chain prerouting {{
        type nat hook prerouting priority dstnat
        ip daddr {PBX_IPV4} meta l4proto {{ tcp, udp }} th dport {{ 5060, 5061 }} dnat to {CONTAINER}
    }}
}}
"""
_CERTIFICATE = "cert_file = /etc/asterisk/ami.pem\npriv_key_file = /etc/asterisk/ami.pem\nmethod = tlsv1_2\n"
_IN_CONTAINER = {
    "manager.conf": (
        f"[general](+)\nbindaddr = {CONTAINER}\n[ringfence](+)\npermit = 10.9.9.0/255.255.255.0\n"
    ),
    "pjsip.conf": "".join(
        f"[{protocol}-inside]\ntype = transport\nprotocol = {protocol}\nbind = {CONTAINER}:{port}\n{more}\n"
        for protocol, port, more in (
            ("udp", 5060, ""),
            ("tcp", 5060, ""),
            (
                "tls",
                5061,
                _CERTIFICATE,
            ),
        )
    ),
}
AMI_INSIDE = {"host": CONTAINER}
"""The table ``[asterisk.ami]`` of a daemon for such an Asterisk."""


@contextmanager
def contained() -> Iterator[Lab]:
    """Make a laboratory whose Asterisk 22 runs in a container on a bridge, with its ports published.

    Its namespace has a second address, for the programs of another container on the same bridge.
    """
    texts = configured("22")
    for name, text in _IN_CONTAINER.items():
        texts[name] = texts.get(name, "") + "\n" + text
    with Network() as network, neighbour() as container:
        with netns.inside(network.pbx):
            run("sysctl", "-q", "net.ipv4.ip_forward=1")
            lines = (
                "link add br-0123456789ab type bridge",
                "link set br-0123456789ab up",
                f"address add {HOST}/24 dev br-0123456789ab",
                f"link add near9 type veth peer name eth0 netns {container}",
                "link set near9 master br-0123456789ab up",
            )
            run("ip", "-batch", "-", text="\n".join(lines))
            run("nft", "--file", "-", text=_PUBLISHED)
        own = ("link set eth0 up", *(f"address add {one}/24 dev eth0" for one in (CONTAINER, BESIDE)))
        run("ip", "-n", container, "-batch", "-", text="\n".join((*own, f"route add default via {HOST}")))
        run("ip", "-n", network.attacker, "route", "add", "10.9.9.0/24", "via", PBX_IPV4)
        with Asterisk(tree_of("22"), container, Kind.PJSIP, extra=texts) as asterisk:
            yield Lab(network, asterisk)


def _in_container(scene: Scene) -> Collection[str]:
    """Another container relays and answers, and lines by TLS have no connection that the kernel knows.

    The lines name a stranger that asks by TLS, and hidden guesses by TLS are listed: nothing shows that they
    are forged.
    """
    namespace = scene.lab.asterisk.namespace
    asks, guesser, *strangers = (scene.at(number) for number in range(1, 6))
    before = scene.foreign
    run(*as_nobody(namespace, _RELAY, BESIDE, "45000", *strangers))
    until(lambda: scene.foreign >= before + 24, "the relay's answers on the wire")
    with other_server(namespace, BESIDE):
        phones = _registering(scene, BESIDE, 11)
    with calling(scene.lab, asks, "TLS") as victim:
        for number in range(2 * GUESSES):
            call_id = f"inside-{scene.network}-{number}"
            assert victim.challenged(Raw(from_user=scene.account, call_id=call_id.encode())) is not None
            with calling(scene.lab, scene.beside(1 + number // 3), "TLS") as caller:
                assert caller.guess(_noticed(scene, asks, call_id), "wrong", 1.0) == 401
    with calling(scene.lab, guesser, "TLS") as caller:
        assert guesses(caller, Raw(from_user=scene.account, call_id=b"\xff{}"), 3) == [401] * 3
    until(lambda: _listed(scene, guesser) == 3, "the hidden guesses")
    alarms = [(one["code"], one["subject"]) for one in scene.guard.status()["alarms"]]
    assert not [alarm for alarm in alarms if alarm == ("evidence.forged", guesser)]
    return {asks, *strangers, *phones}


def _listed(scene: Scene, address: str) -> int:
    """Return the number of attempts of an address that nothing confirms."""
    attempts = scene.guard.ask("why", network=address)["attempts"]
    return sum(not attempt["trusted"] for attempt in attempts)


# -- (k) forged notices about an address that is challenged


def _forged_notices(scene: Scene) -> Collection[str]:
    """One victim asks without credentials, and the attackers have challenges sent to the other one.

    The notices name both, with the Call-IDs of these challenges. Each attacker makes three guesses.
    """
    asks, receives = scene.at(1), scene.at(2)
    with calling(scene.lab, asks) as victim:
        for number in range(2 * GUESSES):
            call_id = f"forged-{scene.network}-{number}"
            asking = Raw(from_user=scene.account, call_id=call_id.encode())
            with calling(scene.lab, scene.beside(1 + number // 3)) as caller:
                if number % 2:
                    assert victim.challenged(asking) is not None
                else:
                    caller.send(evolve(asking, via=f";maddr={receives}".encode()))
                line = _noticed(scene, asks if number % 2 else receives, call_id)
                assert caller.guess(line, "wrong", 1.0) in {401, 403}
    log = scene.lab.asterisk.logs / "ringfence"
    for address in (asks, receives):
        words = f" failed for '{address}:5'".encode()
        until(lambda words=words: log.read_bytes().count(words) >= GUESSES, "the notices")  # type: ignore[misc]
    return {asks, receives}


def _noticed(scene: Scene, victim: str, call_id: str) -> Raw:
    """Return a request whose wrong password makes Asterisk write a notice that names ``victim``.

    chan_sip begins a line at each line feed. Of PJSIP's line, Asterisk removes the text from the ESC to the
    ``m``, so its true end completes the false address.
    """
    if scene.release == "16":
        written = f"{datetime.now(UTC):%F %T}"
        head = f"[{written}.000] NOTICE[1] chan_sip.c: Registration from '<sip:a@b>' failed for "
        line = f"{head}'{victim}:5' - Wrong password"
        return Raw(to_user=b"x" + quote(f"\n{line}\n", safe="").encode())
    display = f"\"' failed for '{victim}:5' (callid: {call_id}\x1b\" "
    return Raw(from_user=scene.account, from_display=display.encode(), call_id=b"{}m")


# -- (l) lamps


def _lamps(scene: Scene) -> Collection[str]:
    """A stranger's phone may not subscribe, and a friend's phone subscribes with an old password."""
    stranger, friend = scene.at(1), scene.at(2)
    with calling(scene.lab, stranger) as caller:
        statuses = [caller.guess(request_of(b"SUBSCRIBE", b"lamp"), PASSWORD, 2.0) for _ in range(GUESSES)]
    assert statuses == [403] * GUESSES
    with phones_at(scene.lab, friend, ["phone1"]) as [phone]:
        scene.befriend(phone, friend)
    with calling(scene.lab, friend) as caller:
        statuses = [caller.guess(request_of(b"SUBSCRIBE", b"phone1"), "old", 2.0) for _ in range(2 * GUESSES)]
    assert set(statuses) <= {401, 403}
    return {stranger, friend}


# -- (m) another SIP server on the host

_SERVER = """
import re, socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind((sys.argv[1], int(sys.argv[2])))
    server.settimeout(60)
    print("ready", flush=True)
    while True:
        request, sender = server.recvfrom(65535)
        own = b"\\r\\n".join(re.findall(rb"(?m)^((?:Via|From|To|Call-ID|CSeq):[^\\r]*)", request))
        right = b"Authorization: " in request
        question = b'401 Unauthorized\\r\\nWWW-Authenticate: Digest realm="asterisk",nonce="1790/%08x"'
        status = b"200 OK" if right else question % len(request)
        server.sendto(b"SIP/2.0 %s\\r\\n%s\\r\\nContent-Length: 0\\r\\n\\r\\n" % (status, own), sender)
"""


@contextmanager
def other_server(namespace: str, address: str, port: int = _OTHER_SERVER) -> Iterator[None]:
    """Run another SIP server, as user nobody, until the block ends."""
    command = as_nobody(namespace, _SERVER, address, str(port))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            server.kill()


def _other_server(scene: Scene) -> Collection[str]:
    """Honest phones register at another SIP server of the host again and again."""
    with other_server(scene.lab.network.pbx, PBX_IPV4):
        return _registering(scene, PBX_IPV4)


def _registering(scene: Scene, server: str, first: int = 1) -> Collection[str]:
    phones = [scene.at(number) for number in range(first, first + 5)]
    for address in phones:
        with phones_at(scene.lab, address, ["phone9"], (server, _OTHER_SERVER)) as [phone]:
            for _ in range(2 * GUESSES):
                phone.reboot()
                assert phone.register() == 200
    return phones


# -- (n) a friend that Asterisk only shows as registered


def _registered_only(scene: Scene) -> Collection[str]:
    """An office's phone registers while no daemon runs; then a colleague mistypes five passwords."""
    office = scene.at(1)
    with phones_at(scene.lab, office, ["plain"]) as [phone]:
        before = scene.guard.log.count("event=friends.known")
        scene.guard.stop()
        assert phone.register(expires=600) == 200
        scene.guard.start()
        until(lambda: scene.guard.source_is("listening"), "all sources")
        # Bans that were decided before are dropped if they would affect a friend.
        until(lambda: scene.guard.log.count("event=friends.known") > before, "the friends to be known")
        reasons = [row["reason"] for row in scene.guard.ask("friends") if row["address"] == office]
        assert reasons == ["registered"]
        with calling(scene.lab, office) as colleague:
            statuses = [
                colleague.guess(Raw(from_user=b"phone2"), f"wrong-{number}", 2.0) for number in range(5)
            ]
        assert set(statuses) <= {401, 403}, statuses
        assert phone.register(expires=600) == 200
    return {office}


# -- (o) temporary addresses of IPv6


def _temporary_addresses(scene: Scene) -> Collection[str]:
    """A softphone registers; then it has an old password, and a new address for each two attempts."""
    network = f"fd00:19:0:{int(scene.network.rpartition('.')[2]):x}"
    scene.lab.run("ip", "route", "replace", f"{network}::/64", "via", "fd00:18::fffe")
    run(*scene.lab.network.in_attacker("ip", "route", "replace", "local", f"{network}::/64", "dev", "lo"))
    phone = Raw(from_user=b"phone3")
    with calling(scene.lab, f"{network}::1", host=PBX_IPV6) as caller:
        until(lambda: caller.guess(phone, PASSWORD, 2.0) == 200, "the registration", pause=0.5)
    until(lambda: f"{network}::1" in {row["address"] for row in scene.guard.ask("friends")}, "the friend")
    for number in range(2, 2 + GUESSES):
        with calling(scene.lab, f"{network}:a:b:c:{number:x}", host=PBX_IPV6) as caller:
            assert [caller.guess(phone, "old", 2.0) for _ in range(2)] == [401] * 2
    return {f"{network}::1", f"{network}:a:b:c:2", f"{network}:a:b:c:ff"}


# -- (p) a forbidden number


def _forbidden_number(scene: Scene) -> Collection[str]:
    """Phones that the daemon does not know call a number that the dialplan refuses."""
    phones = {"UDP": scene.at(1), "TCP": scene.at(2)}
    for transport, address in phones.items():
        if scene.release == "16" and transport == "TCP":
            account, extension = b"lamp", b"100"
        else:
            account, extension = b"phone4" if transport == "UDP" else b"phone5", b"900"
        call = evolve(request_of(b"INVITE", account), extension=extension)
        with calling(scene.lab, address, transport) as caller:
            statuses = [caller.guess(call, PASSWORD, 2.0) for _ in range(GUESSES)]
        assert statuses == [403] * GUESSES, (transport, statuses)
    return set(phones.values())


_BOTH = (
    Recipe("h", "two Vias, the upper with the maddr of a SIP proxy", _two_vias, 9.0),
    Recipe("i", "a relay on the host of the PBX", _relay),
    Recipe("k", "forged notices about an address that is challenged", _forged_notices),
)
_SERVERS = Recipe("m", "another SIP server on the host", _other_server)
_NUMBER = Recipe("p", "a forbidden number", _forbidden_number)
IN_CONTAINER = Recipe("j", "Asterisk in a container", _in_container)
FRAMES: Mapping[str, tuple[Recipe, ...]] = {"22": _BOTH, "16": _BOTH}
HABITS: Mapping[str, tuple[Recipe, ...]] = {
    "22": (
        _SERVERS,
        Recipe("o", "temporary addresses of IPv6, an old password", _temporary_addresses),
        _NUMBER,
    ),
    "16": (
        Recipe("l", "lamps that chan_sip refuses", _lamps, true="phone.broken"),
        _SERVERS,
        Recipe("n", "a friend that Asterisk only shows as registered", _registered_only),
        _NUMBER,
    ),
}
