"""Parts shared by all commands: the path of the configuration, errors, and typed networks."""

from pathlib import Path
from typing import Any

import pytest
import typer
from tests.support.daemon import Guard
from tests.support.unprivileged import unprivileged
from typer.testing import CliRunner

from ringfence.cli.app import app
from ringfence.cli.common import ask_or_read, networks_from
from ringfence.cli.output import errors_reported
from ringfence.config import loader
from ringfence.errors import (
    ConfigError,
    ControlError,
    DaemonUnreachableError,
    FirewallError,
    NoAccessError,
    RingfenceError,
    StoreError,
)


def test_a_missing_configuration(tmp_path: Path) -> None:
    """The error names the file and the fix."""
    result = CliRunner().invoke(app, ["status", "--config", str(tmp_path / "absent.toml")])

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"{tmp_path}/absent.toml:\n  there is no such file; fix: copy examples/minimal.toml there\n"
    )


def test_the_environment_may_name_the_configuration(tmp_path: Path) -> None:
    """RINGFENCE_CONFIG replaces --config."""
    result = CliRunner().invoke(app, ["status"], env={"RINGFENCE_CONFIG": str(tmp_path / "named.toml")})

    assert result.exit_code == 2
    assert "named.toml" in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (ConfigError("file", ["a: wrong", "b: wrong"]), 2, "file:\n  a: wrong\n  b: wrong\n"),
        (DaemonUnreachableError("nobody there"), 3, "nobody there\n"),
        (ControlError("refused"), 1, "refused\n"),
        (FirewallError("no answer"), 1, "no answer\n"),
        (StoreError("disk full"), 1, "disk full\n"),
        (RingfenceError("whatever"), 1, "whatever\n"),
    ],
)
def test_errors_and_exit_codes(
    capsys: pytest.CaptureFixture[str], error: RingfenceError, code: int, lines: str
) -> None:
    """Each kind of error prints its text on standard error and exits with its code."""
    with pytest.raises(typer.Exit) as caught, errors_reported():
        raise error

    assert caught.value.exit_code == code
    assert capsys.readouterr() == ("", lines)


def test_a_defect_is_not_hidden() -> None:
    """An unexpected exception is not caught."""
    with pytest.raises(ZeroDivisionError), errors_reported():
        _ = 1 / 0


def test_networks_as_typed() -> None:
    """Addresses and networks keep their order; anything else is wrong usage."""
    assert [str(network) for network in networks_from(["192.0.2.1", "2001:db8::/32"])] == [
        "192.0.2.1/32",
        "2001:db8::/32",
    ]
    wrong = "not an address or network: 'pbx', '192.0.2.1/99'$"
    with pytest.raises(typer.BadParameter, match=wrong):
        networks_from(["pbx", "192.0.2.1", "192.0.2.1/99"])


def test_without_access_to_the_socket_nothing_is_changed(tmp_path: Path) -> None:
    """A daemon may run behind a socket that is closed to this process, and would not notice the change."""
    with Guard(tmp_path) as guard:
        settings = loader.load(guard.config)
        address: dict[str, Any] = {"what": ["203.0.113.9"], "note": "", "seconds": None, "force": False}
        with unprivileged(), pytest.raises(NoAccessError, match="Permission denied; fix: be root"):
            ask_or_read(settings, "deny_add", **address)
        assert guard.ask("lists", side="deny") == []
