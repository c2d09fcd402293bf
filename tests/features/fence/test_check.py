"""The lines of ``ringfence check`` about the ports of other services, with real sockets."""

import socket
from pathlib import Path
from typing import Any

from ringfence.cli.check import Checked
from ringfence.config.loader import parse
from ringfence.features.fence.check import findings
from ringfence.host.console import NoConsole


def lines(
    closed: list[str] | None,
    proc: Path,
    *,
    ssh: tuple[str, ...] = (),
    **fence: Any,  # noqa: ANN401 - whatever TOML holds
) -> list[str]:
    """Return the lines about a fence with the settings ``fence``.

    ``closed`` are the closed ports, and ``ssh`` those of SSH, that the daemon reports; None: no daemon.
    """
    settings = parse({"fence": {"mode": "enforce", **fence}}, "", {}, secrets=False)
    report = None if closed is None else {"fence": {"closed": closed, "ssh": ssh}}
    checked = Checked(settings, None, NoConsole(""), Path(), report=report)
    return [finding.line for finding in findings(checked, proc)]


def test_the_ports_of_other_services(tmp_path: Path) -> None:
    """A port is closed, open, or unknown; a port at which nothing listens is named."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        web, tftp = f"{one.getsockname()[1]}/tcp", f"{other.getsockname()[1]}/udp"
        also = [web, tftp]
        assert lines([web], tmp_path, also=also) == [
            f"ok  fence: {web}: only those inside reach it",
            f"--  fence: {tftp}: it is open to everybody; see: ringfence fence status",
        ]
        [line, _] = lines([], tmp_path, also=also, ssh=(web,))
        assert line.startswith(f"--  fence: {web}: SSH answers there, so it stays open")
        unknown = "only a running daemon knows whether it is closed"
        assert lines(None, tmp_path, also=also) == [f"--  fence: {port}: {unknown}" for port in also]
        assert lines([], tmp_path, also=also, mode="off") == lines([], tmp_path) == []
    [line] = lines([web], tmp_path, also=[web])
    assert line.startswith(f"--  fence: {web}: no program listens there")


def test_a_port_of_a_container(tmp_path: Path) -> None:
    """The kernel forwards what arrives at a port of a container, so the fence does not meet it."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        files = tmp_path / "77" / "fd"
        files.mkdir(parents=True)
        (tmp_path / "77" / "comm").write_text("docker-proxy\n", "utf-8")
        (files / "3").symlink_to(Path(f"/proc/self/fd/{one.fileno()}").readlink())
        web = f"{one.getsockname()[1]}/tcp"
        [line] = lines([web], tmp_path, also=[web])
    assert line.startswith(f"--  fence: {web}: a container answers there (docker-proxy)")
