"""The ports that Asterisk listens on, found by its user or its process, without the ports of calls."""

import os
import pwd
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.support.asterisk_files import MANAGER_PORT, MANAGER_TLS_PORT, Kind
from tests.support.confined import confined
from tests.support.lab import Lab
from tests.support.netns import inside, run

from ringfence.host import listening
from ringfence.host.asterisk_conf import AsteriskFiles
from ringfence.host.listening import (
    ListeningPorts,
    NamedUsers,
    find_foreign_proxies,
    find_named_users,
    find_ports,
    find_proxy_sockets,
    find_proxy_users,
    find_users,
    foreign_user,
    is_here,
    read_rtp,
)
from ringfence.host.speech import Speeches
from ringfence.values.event import Endpoint, Transport

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
ASTERISK, OTHER = 65_534, 65_533
AMI = (TCP, 5038)

kernel = pytest.mark.kernel
in_netns = pytest.mark.usefixtures("netns")


@contextmanager
def bound(user: int, *ports: tuple[socket.SocketKind, int], host: str = "127.0.0.1") -> Iterator[None]:
    """Make a user listen on these ports while the block runs."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        for kind, port in ports:
            os.seteuid(user)
            try:
                one = stack.enter_context(socket.socket(family, kind))
            finally:
                os.seteuid(0)
            one.bind((host, port))
            if kind is TCP:
                one.listen()
        yield


@pytest.fixture(name="nowhere")
def _nowhere(tmp_path: Path) -> Path:
    """Return a folder that does not exist: neither Asterisk's files nor /proc are visible."""
    return tmp_path / "nowhere"


@kernel
@in_netns
def test_the_ports_are_those_of_the_user_of_the_ami_port(nowhere: Path) -> None:
    """Ports of both IP versions and protocols count, but no other user's, and no connected UDP socket."""
    with (
        bound(ASTERISK, AMI, (UDP, 5060), (TCP, 5060), (TCP, 8089), (UDP, 4569)),
        bound(ASTERISK, (UDP, 5060), (TCP, 5061), host="::1"),
        bound(OTHER, (UDP, 53), (TCP, 80)),
        bound(0, (TCP, 22)),
    ):
        assert find_ports(5038, nowhere, nowhere) == ListeningPorts((4569, 5060), (5038, 5060, 5061, 8089))


@kernel
@in_netns
def test_the_sockets_of_a_proxy_are_those_of_its_user(nowhere: Path) -> None:
    """A proxy is found by the user that Debian's packages make; without one there is no socket."""
    with (
        bound(ASTERISK, AMI, (UDP, 5060)),
        bound(OTHER, (UDP, 5070), (TCP, 5061), (UDP, 40_000)),
        bound(OTHER, (UDP, 5080), host="::"),
    ):
        assert find_proxy_sockets(NamedUsers(), nowhere) == frozenset()
        assert find_proxy_sockets(NamedUsers(proxies=frozenset({OTHER})), nowhere) == {
            Endpoint(ip_address("127.0.0.1"), 5070, Transport.UDP),
            Endpoint(ip_address("::"), 5080, Transport.UDP),
            Endpoint(ip_address("127.0.0.1"), 5061, Transport.TCP),
            Endpoint(ip_address("127.0.0.1"), 40_000, Transport.UDP),
        }


@kernel
@in_netns
@pytest.mark.parametrize(
    ("user", "ami_port"),
    [(ASTERISK, 5039), (ASTERISK, None), (0, 5038)],
    ids=["no manager there", "no manager on this host", "root"],
)
def test_ports_are_unknown_if_asterisk_cannot_be_identified(
    user: int, ami_port: int | None, nowhere: Path
) -> None:
    """An Asterisk in a container, on another host, or with the user root cannot be identified."""
    with bound(user, AMI, (UDP, 5060)):
        assert find_ports(ami_port, nowhere, nowhere) is None


@kernel
@in_netns
def test_this_hosts_addresses_are_here() -> None:
    """Addresses of loopback and of interfaces are this host; neighbours and names of hosts are not."""
    run("ip", "link", "add", "eth9", "type", "veth", "peer", "name", "far9")
    for device in ("eth9", "far9"):
        run("ip", "link", "set", device, "up")
    for address in (["192.0.2.7/24"], ["2001:db8::7/64", "nodad"]):
        run("ip", "address", "add", *address, "dev", "eth9")
    run("sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=1")  # as on a pair of hosts with a floating address
    own = ("127.0.0.1", "127.0.0.9", "::1", "localhost", "0.0.0.0", "192.0.2.7", "2001:db8::7")
    others = ("192.0.2.8", "2001:db8::8", "198.51.100.1", "pbx.example.org", "")

    assert [host for host in own if not is_here(host)] == []
    assert [host for host in others if is_here(host)] == []


@kernel
@in_netns
def test_the_manager_alone_is_not_all(nowhere: Path) -> None:
    """A starting Asterisk opens the AMI port first, and a lone AMI port may be a tunnel to another host."""
    with bound(ASTERISK, AMI):
        assert find_ports(5038, nowhere, nowhere) is None


@kernel
@in_netns
def test_two_users_of_the_ami_port_identify_no_asterisk(nowhere: Path) -> None:
    """Two programs may listen on one port of two addresses, so neither user is taken as Asterisk."""
    with bound(ASTERISK, AMI, (UDP, 5060)), bound(OTHER, AMI, host="127.0.0.2"):
        assert find_ports(5038, nowhere, nowhere) is None


@kernel
@in_netns
@pytest.mark.parametrize(
    ("files", "found"),
    [
        (None, (4569, 5060, 5080, 5090, 9999)),
        ({}, (4569, 5060)),
        ({"rtp.conf": "[general]\nrtpstart=10000\nrtpend=20000\n"}, (4569, 5060, 5080, 5090, 9999, 20001)),
        ({"rtp.conf": "[general]\nrtpstart=5062\nrtpend=5089\n"}, (4569, 5060, 5090, 9999, 10000, 20001)),
        ({"rtp.conf": "[general]\nicesupport=yes\nrtpstart=many\n"}, (4569, 5060)),
    ],
    ids=["not to be read", "no rtp.conf", "Asterisk's own", "few", "no range"],
)
def test_ports_of_calls_are_not_among_them(
    files: dict[str, str] | None, found: tuple[int, ...], tmp_path: Path, nowhere: Path
) -> None:
    """Ports of rtp.conf's range are left out: by default Asterisk's own, or all from 10000 if unreadable."""
    folder = nowhere
    if files is not None:
        folder = tmp_path / "etc"
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
    ports = (4569, 5060, 5080, 5090, 9999, 10000, 20001, 32768, 60000)
    with bound(ASTERISK, AMI, *((UDP, port) for port in ports)):
        assert find_ports(5038, folder, nowhere) == ListeningPorts(found, (5038,))


@kernel
@in_netns
def test_a_pair_of_ports_is_a_calls_until_it_answers_if_the_range_is_unknown(nowhere: Path) -> None:
    """Calls may be below 10000 if rtp.conf cannot be read, and so may two SIP ports side by side."""
    pairs = (5060, 5061), (5080, 5081), (8000, 8001)
    with (
        bound(ASTERISK, AMI, (UDP, 4569), *((UDP, port) for pair in pairs for port in pair if port != 5080)),
        socket.socket(socket.AF_INET, UDP) as server,
        ThreadPoolExecutor() as pool,
    ):
        os.fchown(server.fileno(), ASTERISK, ASTERISK)
        server.bind(("127.0.0.1", 5080))
        assert find_ports(5038, nowhere, nowhere) == ListeningPorts((4569, 5060, 5061), (5038,))
        answered = pool.submit(lambda: server.sendto(b"SIP/2.0 481 None", server.recvfrom(4096)[1]))
        found = find_ports(5038, nowhere, nowhere, Speeches())
        assert found is not None
        assert found.udp == (4569, 5060, 5061, 5080)
        answered.result()


def show_as(name: str, proc: Path) -> None:
    """Show this process in ``proc`` under the name of another program, with its sockets."""
    process = proc / "4242"
    process.mkdir()
    (process / "comm").write_text(f"{name}\n")
    (process / "fd").symlink_to("/proc/self/fd")


@kernel
@in_netns
def test_a_visible_process_identifies_asterisk(nowhere: Path, tmp_path: Path) -> None:
    """A visible process identifies Asterisk, even as root beside other programs; here it is the test."""
    show_as("asterisk", tmp_path)
    with bound(0, AMI, (UDP, 5060), (TCP, 5060)):
        assert find_ports(None, nowhere, tmp_path) == ListeningPorts((5060,), (5038, 5060))


@kernel
@in_netns
def test_they_are_known_under_the_hardening_of_the_unit(tmp_path: Path) -> None:
    """An unprivileged user without capabilities and without other processes in /proc finds the ports."""
    imports = "import json; from pathlib import Path; from ringfence.host.listening import find_ports"
    with bound(ASTERISK, AMI, (UDP, 5060), (TCP, 5061)), bound(OTHER, (UDP, 5070)):
        found = confined(imports, f"print(json.dumps(find_ports(5038, Path({str(tmp_path)!r}))))", tmp_path)
    assert found[:2] == [[5060], [5038, 5061]]


@kernel
@in_netns
def test_the_users_of_asterisk_are_those_of_its_manager_ports(nowhere: Path) -> None:
    """Root counts too; two users of one port are ambiguous, and other sockets do not matter."""
    with bound(ASTERISK, AMI, (UDP, 5060)), bound(OTHER, (UDP, 5070)), bound(0, (TCP, 5039)):
        assert find_users([5038], NamedUsers(), nowhere) == {ASTERISK}
        assert find_users([5038, 5039], NamedUsers(), nowhere) == {ASTERISK, 0}
        with bound(OTHER, AMI, host="127.0.0.2"):
            assert find_users([5038], NamedUsers(), nowhere) == frozenset()
    assert find_users([5038], NamedUsers(), nowhere) == frozenset()


@kernel
@in_netns
def test_without_a_manager_port_the_process_or_the_user_identifies_asterisk(
    nowhere: Path, tmp_path: Path
) -> None:
    """A visible process named asterisk, else the user asterisk if it has a SIP socket."""
    process = tmp_path / "4242"
    process.mkdir()
    (process / "comm").write_text("asterisk\n")
    (process / "fd").symlink_to("/proc/self/fd")
    named = NamedUsers(ASTERISK)
    with bound(OTHER, (UDP, 5070)):
        assert find_users([5038], NamedUsers(), tmp_path) == {OTHER}
        assert find_users([5038], named, nowhere) == frozenset()
        with bound(ASTERISK, (UDP, 5080)):
            assert find_users([], named, nowhere) == frozenset()
        with bound(ASTERISK, (UDP, 5060)):
            assert find_users([], NamedUsers(), nowhere) == frozenset()
            assert find_users([], named, nowhere) == {ASTERISK}


@kernel
@in_netns
def test_a_user_that_does_not_run_asterisk_is_not_taken_for_it(nowhere: Path, tmp_path: Path) -> None:
    """While Asterisk is down, any user may listen on its port, by a program of its name."""
    show_as("asterisk", tmp_path)
    named = NamedUsers(ASTERISK)
    with bound(OTHER, AMI, (UDP, 5070)):
        assert find_users([5038], named, tmp_path) == frozenset()
        assert find_ports(5038, nowhere, tmp_path, named=named) is None
        with bound(ASTERISK, (UDP, 5060)):
            assert find_users([5038], named, nowhere) == {ASTERISK}
            assert find_ports(5038, nowhere, tmp_path, named=named) == ListeningPorts((5060,), ())


@kernel
@in_netns
def test_the_users_of_a_proxy_include_the_one_that_opened_its_sockets(nowhere: Path, tmp_path: Path) -> None:
    """A proxy may open its sockets as root, and accept connections as its own user."""
    show_as("kamailio", tmp_path)
    named = NamedUsers(proxies=frozenset({OTHER}))
    with bound(0, (UDP, 5060)):
        assert find_proxy_users(named, nowhere) == {OTHER}
        assert find_proxy_users(named, tmp_path) == {OTHER, 0}


@kernel
@in_netns
def test_a_program_named_like_a_proxy_counts_only_if_its_user_may_run_one(
    nowhere: Path, tmp_path: Path
) -> None:
    """Any user can start a program of that name, so its user must be known."""
    show_as("kamailio", tmp_path)
    known = (
        NamedUsers(OTHER),
        NamedUsers(proxies=frozenset({OTHER})),
        NamedUsers(owners=frozenset({OTHER})),
    )
    with bound(OTHER, (UDP, 5070)):
        for named in (NamedUsers(), NamedUsers(ASTERISK)):
            assert find_proxy_sockets(named, tmp_path) == frozenset()
            assert find_proxy_users(named, tmp_path) == frozenset()
            assert find_foreign_proxies(named, nowhere) == []
            [foreign] = find_foreign_proxies(named, tmp_path)
            assert str(OTHER) in foreign
        for named in known:
            assert len(find_proxy_sockets(named, tmp_path)) == 1
            assert find_proxy_users(named, tmp_path) == {OTHER}
            assert find_foreign_proxies(named, tmp_path) == []


def test_no_user_may_run_a_proxy_because_asterisks_user_is_unknown() -> None:
    """Root and ringfence's own user may, and the known users of proxies and of Asterisk."""
    first = 4_000_000_000
    named = NamedUsers(first, frozenset({first + 1}), frozenset({first + 2}))

    assert [named.may_run_proxy(first + number) for number in range(4)] == [True, True, True, False]
    assert [NamedUsers().may_run_proxy(user) for user in (0, os.getuid(), first)] == [True, True, False]


def test_rtp_conf_is_unknown_if_it_is_too_large(tmp_path: Path) -> None:
    """The daemon reads it every few seconds, and an attacker that has taken over Asterisk may write it."""
    (tmp_path / "rtp.conf").write_text("[general]\nrtpstart=5000\n" + "a = 1\n" * 10_000, "utf-8")
    conf = read_rtp(AsteriskFiles(tmp_path))

    assert conf is not None
    assert [one.why for one in conf.unread] == ["this file with its includes is too large for ringfence"]
    assert listening._calls(tmp_path) is None


def test_the_users_are_those_that_debians_packages_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asterisk's user and those of Kamailio and OpenSIPS are known by their names; any may be missing."""
    there = {"asterisk": ASTERISK, "opensips": OTHER}
    monkeypatch.setattr(listening, "user_number", there.get)
    monkeypatch.setattr(listening, "_FOLDERS", (tmp_path / "none",))
    assert find_named_users() == NamedUsers(ASTERISK, frozenset({OTHER}))
    there.clear()
    assert find_named_users() == NamedUsers()


@kernel
def test_asterisks_user_is_root_or_named_so_or_owns_its_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other user is foreign, by name and number; none is while only root is known."""
    there = dict[str, int]()
    monkeypatch.setattr(listening, "user_number", there.get)
    monkeypatch.setattr(listening, "_FOLDERS", (tmp_path, tmp_path / "none"))
    somebody = next(one for one in pwd.getpwall() if one.pw_uid not in {0, ASTERISK, OTHER})
    users = (0, ASTERISK, OTHER, somebody.pw_uid, 4_000_000_000)
    name = f"{somebody.pw_name} ({somebody.pw_uid})"

    assert [foreign_user(user) for user in users] == ["", "", "", "", ""]
    there["asterisk"] = OTHER
    os.chown(tmp_path, ASTERISK, -1)
    assert find_named_users() == NamedUsers(OTHER, owners=frozenset({ASTERISK}))
    assert [foreign_user(user) for user in users] == ["", "", "", name, "4000000000"]


def test_the_configuration_names_further_users_of_asterisk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a user, perhaps of a container, has a number or a name; a name without a user is left out."""
    monkeypatch.setattr(listening, "_FOLDERS", (tmp_path / "none",))
    users = (str(OTHER), "root", "no-such-user")
    assert find_named_users(users).owners == {OTHER, 0}
    assert [foreign_user(user, users) for user in (OTHER, 4_000_000_000)] == ["", "4000000000"]


def test_the_most_usual_users_need_no_look_up_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of names that does not answer delays no login to their Asterisk."""
    monkeypatch.setattr(listening, "user_number", pytest.fail)
    assert foreign_user(0) == ""


def test_ports_are_unknown_without_the_kernels_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ports are unknown if the kernel lacks the module udp_diag."""

    def failing(*_: object) -> None:
        raise OSError(2, "sock_diag")

    monkeypatch.setattr(listening, "sockets", failing)
    assert find_ports(5038) is None
    assert find_users([5038], NamedUsers()) == frozenset()


@pytest.mark.asterisk
@pytest.mark.parametrize("hidden", [True, False], ids=["/proc is hidden", "/proc is seen"])
def test_the_ports_of_a_real_asterisk_are_found(each_asterisk: Lab, nowhere: Path, *, hidden: bool) -> None:
    """The daemon finds the ports by the user alone, and root finds them by the process."""
    sip = (5060, 5080) if each_asterisk.asterisk.kind is Kind.CHAN_SIP else (5060,)
    with inside(each_asterisk.network.pbx):
        found = find_ports(MANAGER_PORT, nowhere, nowhere) if hidden else find_ports(None, nowhere)
    assert found is not None
    assert found.udp == sip
    assert {MANAGER_PORT, MANAGER_TLS_PORT, 5060} <= set(found.tcp)
