"""``ringfence web`` and ``ringfence web login``: options and errors."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from tests.support.web import ENVIRON, command, web_server
from typer.testing import CliRunner, Result

from ringfence.cli.app import app
from ringfence.features.web.command import _checked_url

PLAIN = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: None if name == "{}" else find(name, *more)
from ringfence.cli.entry import main
main()
"""
"""Runs ringfence where a package is not installed."""


def run(*arguments: str) -> Result:
    """Run ``ringfence web`` with options that it refuses, or ``ringfence web login``."""
    return CliRunner().invoke(app, ["web", *arguments], env={"COLUMNS": "80"})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--listen", "0.0.0.0:8721"], "--listen must be a loopback address"),
        (["--listen", "8721"], "must be an address and a port"),
        (["--unix", "/nowhere/web.sock"], "--unix needs --url"),
        (["--url", "pbx.example.com"], "--url must be an address such as"),
        (["--url", "https://pbx.example.com/ringfence"], "--url must be an address such as"),
        (["--url", "https://user@pbx.example.com"], "--url must be an address such as"),
        (["--url", "http://pbx.example.com"], "--url must begin with https"),
        (["--url", "https://[::1"], "--url must be an address such as"),
        (["--client-header", "X-Real-IP"], "--client-header must be the name of a header, and needs"),
        (["--url", "https://pbx.example.com", "--client-header", "X: y"], "must be the name of a header"),
    ],
)
def test_wrong_options_are_usage_errors(arguments: list[str], text: str) -> None:
    """An address that other hosts reach, and one that is no address, are refused."""
    done = run(*arguments)

    assert (done.exit_code, done.stdout) == (2, "")
    assert text in " ".join(done.stderr.split()).replace(" │ │ ", " ")


def test_a_socket_that_cannot_be_made_is_an_error() -> None:
    """The error names the socket and the reason."""
    line = command("--unix", "/nowhere/web.sock", "--url", "http://localhost")
    done = subprocess.run(line, env=ENVIRON, capture_output=True, text=True, check=False, timeout=30)

    assert (done.returncode, done.stderr) == (
        1,
        "cannot listen on /nowhere/web.sock: No such file or directory\n",
    )


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_without_the_extra_the_error_names_the_package(package: str) -> None:
    """The page needs packages that a plain installation lacks; the help and the login do without them."""

    def without(*arguments: str) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, "-c", PLAIN.format(package), "web", *arguments]
        return subprocess.run(line, env=ENVIRON, capture_output=True, text=True, check=False, timeout=60)

    done = without()
    assert (done.returncode, done.stderr) == (
        1,
        f"the live page needs the Python package {package}; fix: pip install 'ringfence[web]'\n",
    )
    assert without("--help").returncode == 0
    assert without("login", "--login-socket", "/nowhere/login.sock").stderr.startswith("the live page does")


def test_login_prints_a_link(tmp_path: Path) -> None:
    """Standard output is the link alone; standard error names the person and the role."""
    with web_server(tmp_path / "web", tmp_path / "control.sock") as web:
        done = web.login("--name", "bob", "--read-only")
        assert done.returncode == 0
        assert done.stdout.startswith("http://localhost/login#")
        assert done.stderr == "It logs in bob, to read only, once, within five minutes.\n"
        assert web.login("--name", "x" * 65).returncode == 1


def test_login_without_the_page_is_an_error(tmp_path: Path) -> None:
    """The error names the unit to start."""
    done = run("login", "--login-socket", str(tmp_path / "none"))

    assert done.exit_code == 1
    assert done.stderr.startswith("the live page does not run (")
    assert "systemctl start ringfence-web" in done.stderr


@pytest.mark.parametrize(
    ("typed", "origin"),
    [
        ("https://PBX.Example.com/", "https://pbx.example.com"),
        ("https://pbx.example.com:443", "https://pbx.example.com"),
        ("https://pbx.example.com:8443", "https://pbx.example.com:8443"),
        ("HTTP://[::1]:80", "http://[::1]"),
    ],
)
def test_the_url_is_as_browsers_write_it(typed: str, origin: str) -> None:
    """Forms must have the URL as their Origin, where browsers write neither capitals nor the usual port."""
    assert _checked_url(typed) == origin


def test_a_port_that_is_no_number_is_a_usage_error() -> None:
    """The port of --url is checked at the start."""
    with pytest.raises(typer.BadParameter, match="--url must be an address such as"):
        _checked_url("https://pbx.example.com:x")
