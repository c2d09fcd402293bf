"""Addresses that the host needs: all kinds together, read and followed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from ipaddress import ip_network
from pathlib import Path

import pytest
from tests.support.confined import confined, session
from tests.support.netns import run

from ringfence.errors import HostError
from ringfence.host import protected, routes
from ringfence.host.protected import Reasons, follow_protected, join_reasons, read_protected, read_resolvers
from ringfence.values.network import Network

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

PARTS = "gateways", "resolvers", "logins"


def nets(**reasons: str) -> dict[Network, str]:
    """Return these reasons by address: the keyword ``_N`` stands for 192.0.2.N."""
    return {ip_network(f"192.0.2{name.replace('_', '.')}"): reason for name, reason in reasons.items()}


@pytest.fixture(autouse=True)
def _cable(netns: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a card with a gateway behind it, and remove the pauses between readings."""
    run(
        *("ip", "-batch", "-"),
        text="link add eth9 type veth peer name far9\nlink set eth9 up\nlink set far9 up\n"
        "address add 192.0.2.7/24 dev eth9\nroute add default via 192.0.2.1 dev eth9\n",
    )
    monkeypatch.setattr(routes, "GATEWAYS_APART", 0.0)
    monkeypatch.setattr(protected, "LOOK_EVERY", 0.01)


class Followed:
    """The addresses and the errors that the follower reported, in order; it reads files of the test."""

    def __init__(self, folder: Path) -> None:
        self.seen: list[Mapping[Network, str]] = []
        self.failed: list[str] = []
        self.parts: dict[str, Reasons] = {}
        self.resolv_conf = folder / "resolv.conf"
        self.logins: dict[Network, str] = {}

    def record(self, part: str, found: Reasons | HostError) -> None:
        """Record an error, or the addresses of a part: together with the others once all are known."""
        if isinstance(found, HostError):
            self.failed.append(str(found))
        self.parts[part] = self.parts.get(part, {}) if isinstance(found, HostError) else found
        if len(self.parts) == len(PARTS):
            self.seen.append(join_reasons(self.parts[one] for one in PARTS))

    async def follow(self, part: str, following: AsyncIterator[Reasons | HostError]) -> None:
        """Record what the follower of one part reports."""
        async for found in following:
            self.record(part, found)

    async def until(self, **expected: str) -> None:
        """Wait until ``expected`` is what was reported last."""
        async with asyncio.timeout(20):
            while self.seen[-1:] != [nets(**expected)]:  # noqa: ASYNC110 - an Event would know no more
                await asyncio.sleep(0.01)

    async def until_failed(self, count: int) -> None:
        """Wait until ``count`` errors were reported."""
        async with asyncio.timeout(20):
            while len(self.failed) < count:  # noqa: ASYNC110 - an Event would know no more
                await asyncio.sleep(0.01)


@pytest.fixture(name="followed")
def _followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Followed:
    followed = Followed(tmp_path)
    monkeypatch.setattr(protected, "read_resolvers", lambda: read_resolvers(followed.resolv_conf, ()))
    monkeypatch.setattr(protected, "read_logins", lambda: dict(followed.logins))
    return followed


def run_script(followed: Followed, script: Callable[[], Coroutine[None, None, None]]) -> None:
    """Follow while a script runs."""

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            following = follow_protected().items()
            tasks = [group.create_task(followed.follow(part, one)) for part, one in following]
            await script()
            for task in tasks:
                task.cancel()

    asyncio.run(main())


def test_each_kind_is_followed_with_all_its_reasons(followed: Followed) -> None:
    """All kinds are reported together, then each change; one router can be both gateway and resolver."""

    async def script() -> None:
        followed.resolv_conf.write_text("nameserver 192.0.2.53\n")
        await followed.until(_1="the gateway of eth9", _53="a DNS resolver of this host")
        followed.resolv_conf.write_text("nameserver 192.0.2.1\n")
        await followed.until(_1="the gateway of eth9 and a DNS resolver of this host")
        followed.logins = nets(_9="the remote host of a login (root on pts/0)")
        await followed.until(
            _1="the gateway of eth9 and a DNS resolver of this host",
            _9="the remote host of a login (root on pts/0)",
        )
        followed.logins = {}
        run("ip", "route", "delete", "default")
        await followed.until(_1="a DNS resolver of this host")

    followed.resolv_conf.write_text("nameserver 192.0.2.53\n")
    run_script(followed, script)

    assert followed.seen[0] == nets(_1="the gateway of eth9", _53="a DNS resolver of this host")
    assert followed.failed == []


def replace(path: Path, *, folder: bool = False) -> None:
    """Put a link to a folder, or a file, in its place at once: it may be read at any moment."""
    new = path.with_name("new")
    if folder:
        new.symlink_to(path.parent)
    else:
        new.write_text("nameserver 192.0.2.53\n")
    new.replace(path)


def test_an_error_keeps_the_last_known_addresses(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each error is reported once, and after it the addresses are reported again even if unchanged."""
    followed.resolv_conf.write_text("nameserver 192.0.2.53\n")

    async def script() -> None:
        await followed.until(_1="the gateway of eth9", _53="a DNS resolver of this host")
        replace(followed.resolv_conf, folder=True)
        await followed.until_failed(1)
        followed.logins = nets(_9="a login")
        await followed.until(_1="the gateway of eth9", _53="a DNS resolver of this host", _9="a login")
        followed.seen.clear()
        replace(followed.resolv_conf)
        await followed.until(_1="the gateway of eth9", _53="a DNS resolver of this host", _9="a login")

    run_script(followed, script)

    assert followed.failed == [
        f"the DNS resolvers of this host cannot be read: {followed.resolv_conf}: Is a directory"
    ]


def test_an_error_from_the_start_does_not_delay_the_others(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other kinds are still reported, both by the reader and by the follower."""

    def failing(**_: int) -> None:
        raise OSError(24, "Too many open files")

    followed.resolv_conf.write_text("nameserver 192.0.2.53\n")
    monkeypatch.setattr("ringfence.host.routes.AsyncIPRoute", failing)
    monkeypatch.setattr("ringfence.host.routes.IPRoute", failing)
    for part, found in read_protected().items():
        followed.record(part, found)
    assert followed.seen == [nets(_53="a DNS resolver of this host")]
    followed.seen.clear()
    followed.parts.clear()

    async def script() -> None:
        await followed.until(_53="a DNS resolver of this host")

    run_script(followed, script)
    assert followed.failed[:2] == [
        "the gateways of this host cannot be read by rtnetlink: [Errno 24] Too many open files",
        "the gateways of this host cannot be followed by rtnetlink: [Errno 24] Too many open files",
    ]


def test_all_is_known_under_the_hardening_of_the_unit(tmp_path: Path) -> None:
    """An unprivileged user without capabilities and with little in /proc reads the real files and library."""
    (tmp_path / "sessions").mkdir()
    (tmp_path / "sessions" / "1").write_text(session())
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.53\n")
    imports = "import json; from ringfence.host.protected import join_reasons, read_protected"
    code = (
        "print(json.dumps({str(net): why for net, why in join_reasons(read_protected().values()).items()}))"
    )
    assert confined(imports, code, tmp_path) == {
        "192.0.2.1/32": "the gateway of eth9",
        "192.0.2.53/32": "a DNS resolver of this host",
        "203.0.113.5/32": "the remote host of a login (root on pts/0)",
    }
