"""``setup --crowdsec`` on a host in a folder, with a real CrowdSec and its ``cscli``."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from attrs import frozen
from tests.features.setup.world import SERVICE, Host, allow_any_reader, make_host
from tests.support.crowdsec import CrowdSec, crowdsec, tree
from tests.support.pbx_machine import differing

from ringfence.config import loader
from ringfence.errors import ConfigError, SetupError
from ringfence.features.fleet import setup as fleet_setup
from ringfence.features.fleet.cscli import Cscli, Registration
from ringfence.features.fleet.settings import Access, CrowdsecSettings
from ringfence.features.fleet.setup import Joining, prove_access
from ringfence.features.setup import command as setup_command
from ringfence.features.setup import session
from ringfence.features.setup.command import SetupRun
from ringfence.values.secret import Secret

pytestmark = pytest.mark.kernel

NAME = "pbx-a"


@frozen
class Place:
    """A host without a daemon, and the local API on it."""

    host: Host
    api: CrowdSec

    def setup(self, *, yes: bool = True, dry_run: bool = False, **wanted: Any) -> bool:  # noqa: ANN401 - options
        """Run setup; ``wanted`` has what differs from the usual options."""
        options = {"url": self.api.url, "machine": NAME} | wanted
        return SetupRun(self.host.paths, dry_run=dry_run, yes=yes, parts=[Joining(**options)]).setup()

    def undo(self) -> bool:
        """Undo setup."""
        return SetupRun(self.host.paths, dry_run=False, yes=True).undo()

    def registered(self) -> tuple[list[str], list[str]]:
        """Return the names of the machines and of the bouncers, without those of the test."""
        rows = [json.loads(self.api.cscli(group, "list")) for group in ("machines", "bouncers")]
        machines = [row["machineId"] for row in rows[0] if row["machineId"] != "cscli"]
        return machines, [row["name"] for row in rows[1] if row["name"] != "test"]

    @property
    def files(self) -> tuple[Path, Path]:
        """The files with the password and the key."""
        folder = self.host.paths.config.parent
        return folder / "crowdsec.password", folder / "crowdsec.key"

    def credentials(self) -> tuple[str, str]:
        """Return the password and the key."""
        password, key = self.files
        return password.read_text("ascii").strip(), key.read_text("ascii").strip()

    @property
    def config(self) -> Path:
        """CrowdSec's configuration."""
        return self.host.paths.etc / "crowdsec/config.yaml"


@pytest.fixture(name="place")
def _place(netns: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    host = make_host(tmp_path)
    allow_any_reader(monkeypatch)
    monkeypatch.setattr(setup_command, "find", lambda _paths: host.found())
    monkeypatch.setattr(session, "find_asterisk", host.asterisk)
    monkeypatch.setattr(session, "flush_everything", lambda: None)
    with crowdsec(host.folder / "crowdsec") as api:
        monkeypatch.setenv("PATH", f"{tree()}/usr/bin:{os.environ['PATH']}")
        place = Place(host, api)
        place.config.parent.mkdir()
        shutil.copy(host.folder / "crowdsec/config.yaml", place.config)
        yield place


@pytest.fixture(name="without_cscli")
def _without_cscli(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide ``cscli``: CrowdSec runs on another host."""
    path = os.environ["PATH"].removeprefix(f"{tree()}/usr/bin:")
    monkeypatch.setenv("PATH", path)


def test_one_command_registers_and_undo_leaves_no_trace(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both registrations work; only root and the service read the files; a second run changes nothing."""
    before = place.host.digest()
    assert place.setup()

    shown = capsys.readouterr().out
    assert f"ok  crowdsec: {place.api.url} stores and returns decisions of pbx-a\n" in shown
    assert place.registered() == ([NAME], [NAME])
    assert place.api.decisions() == set()
    assert not any(secret in shown for secret in place.credentials())
    for path in place.files:
        found = path.stat()
        assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o640, 0, SERVICE.gid)
    shared = loader.load(place.host.paths.config, secrets=False).of(CrowdsecSettings).sharing
    assert shared is not None
    assert (shared.access.url, shared.access.machine) == (place.api.url, NAME)
    assert (shared.access.password().reveal(), shared.access.key().reveal()) == place.credentials()

    complete = place.host.digest()
    assert place.setup()
    assert "\nNo file has to be changed.\n" in capsys.readouterr().out
    assert differing(complete, place.host.digest()) == []

    assert place.undo()
    assert "This registration at CrowdSec ends: bouncer pbx-a\n" in capsys.readouterr().out
    assert place.registered() == ([], [])
    assert differing(before, place.host.digest()) == []


def test_a_host_that_is_set_up_joins_later(place: Place) -> None:
    """The settings of the administrator stay, and a later run without the option keeps the table."""
    plain = SetupRun(place.host.paths, dry_run=False, yes=True)
    assert plain.setup()
    config = place.host.paths.config
    own = config.read_text("utf-8") + "\n[rules.guess]\nattempts = 4\n# of the administrator"
    config.write_text(own, "utf-8")

    assert place.setup()
    assert config.read_text("utf-8").startswith(own + "\n\n# ")
    joined = config.read_bytes()
    assert plain.setup()
    assert config.read_bytes() == joined


def test_a_later_run_that_writes_the_configuration_keeps_the_table(place: Place) -> None:
    """If the networks of the host change, setup writes its own configuration again."""
    assert place.setup()
    config = place.host.paths.config
    joined = config.read_bytes()
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr("tests.features.setup.world.EXEMPT", {})
        assert SetupRun(place.host.paths, dry_run=False, yes=True).setup()

    assert config.read_bytes() != joined
    assert loader.load(config, secrets=False).of(CrowdsecSettings).machine == NAME


def test_a_dry_run_shows_the_steps_and_makes_none(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands, the files and the proof are named."""
    before = place.host.digest()
    assert place.setup(dry_run=True)

    shown = capsys.readouterr().out
    commands = "  cscli machines add pbx-a --auto --file -\n  cscli bouncers add pbx-a\n"
    assert f"\nTo share bans:\n{commands}" in shown
    assert f"  prove {place.api.url} with a decision about an address that nobody has\n" in shown
    assert place.registered() == ([], [])
    assert differing(before, place.host.digest()) == []


def test_a_proof_that_fails_takes_everything_back(place: Place) -> None:
    """Without the API nothing stays, no registration either."""
    before = place.host.digest()
    place.api.kill()

    with pytest.raises(SetupError, match="Connection refused"):
        place.setup()
    assert place.registered() == ([], [])
    assert differing(before, place.host.digest()) == []


def test_a_failure_on_a_host_that_is_set_up_keeps_the_setup(place: Place) -> None:
    """Only what this run has made is taken back."""
    assert SetupRun(place.host.paths, dry_run=False, yes=True).setup()
    complete = place.host.digest()
    place.api.kill()

    with pytest.raises(SetupError, match="Connection refused"):
        place.setup()
    assert place.registered() == ([], [])
    assert differing(complete, place.host.digest()) == []


@pytest.mark.parametrize("group", ["machines", "bouncers"])
def test_a_name_of_somebody_else_is_never_taken(place: Place, group: str) -> None:
    """The other registration stays as it is, and another name works."""
    more = ("--auto", "--file", "-") if group == "machines" else ()
    place.api.cscli(group, "add", NAME, *more)
    taken = place.registered()
    before = place.host.digest()

    with pytest.raises(
        SetupError, match=f"has a {group[:-1]} pbx-a already; fix: .*cscli {group} delete pbx-a"
    ):
        place.setup()
    assert place.registered() == taken
    assert differing(before, place.host.digest()) == []
    assert place.setup(machine="pbx-b")
    assert place.undo()
    assert place.registered() == taken


@pytest.mark.parametrize(("there", "wanted"), [("/", ""), ("", "/")])
def test_a_slash_at_the_end_names_no_other_api(tmp_path: Path, there: str, wanted: str) -> None:
    """The configuration uses the API already; another port is another API."""
    config, url = tmp_path / "ringfence.toml", "http://127.0.0.1:8080"
    config.write_text(f'[crowdsec]\nurl = "{url}{there}"\nmachine = "{NAME}"\n', "utf-8")

    assert not Joining(f"{url}{wanted}", NAME).plan(config, tmp_path, (), asks=False)
    with pytest.raises(SetupError, match=f"whose url is {url}"):
        Joining("http://127.0.0.1:8081", NAME).plan(config, tmp_path, (), asks=False)


@pytest.mark.parametrize("step", ["machine", "bouncer", "proof"])
@pytest.mark.parametrize("then", ["setup", "undo"])
def test_a_killed_run_can_be_continued_and_undone(place: Place, step: str, then: str) -> None:
    """A registration whose password was lost with the process is made again, or ends with the undo."""
    before = place.host.digest()
    killed_after(place, step)
    assert NAME in place.registered()[0]

    if then == "setup":
        assert place.setup()
        assert place.registered() == ([NAME], [NAME])
    assert place.undo()
    assert place.registered() == ([], [])
    assert differing(before, place.host.digest()) == []


def killed_after(place: Place, step: str) -> None:
    """Run setup in a child that ends at once after a step: a registration, or the proof."""
    child = os.fork()
    if child == 0:
        add = Cscli.add

        def added(self: Cscli, one: Registration) -> Secret:
            made = add(self, one)
            if one.kind == step:
                os._exit(0)
            return made

        def proven(access: Access) -> None:
            prove_access(access)
            os._exit(0)

        try:
            Cscli.add = added  # type: ignore[method-assign]
            vars(fleet_setup)["prove_access"] = proven
            place.setup()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.usefixtures("without_cscli")
def test_elsewhere_the_credentials_come_from_files(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan names the commands for the other host; with their output in files setup joins."""
    with pytest.raises(
        SetupError, match="no cscli is on this host; fix: run cscli machines add pbx-a --auto"
    ):
        place.setup()
    assert place.setup(dry_run=True)
    assert "\n  cscli bouncers add pbx-a\n" in capsys.readouterr().out

    place.api.node(NAME, tmp_path)
    files: dict[str, Any] = {f"{one}_file": tmp_path / f"crowdsec.{one}" for one in ("password", "key")}
    assert place.setup(**files)
    assert place.credentials() == ("password-of-pbx-a", "key-of-pbx-a")
    assert place.undo()
    assert place.registered() == ([NAME], [NAME])
    assert not any(path.exists() for path in place.files)


@pytest.mark.usefixtures("without_cscli")
def test_elsewhere_the_terminal_asks(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without files the administrator types both; a wrong one takes everything back."""
    place.api.node(NAME, tmp_path)
    before = place.host.digest()
    monkeypatch.setattr(typer, "confirm", lambda _text: True)
    typed = iter(["password-of-pbx-a", "wrong", "password-of-pbx-a", "key-of-pbx-a"])
    monkeypatch.setattr(typer, "prompt", lambda _text, hide_input: next(typed) if hide_input else "")

    with pytest.raises(SetupError, match="status 403: the key of the bouncer"):
        place.setup(yes=False)
    assert differing(before, place.host.digest()) == []
    assert place.setup(yes=False)
    assert place.credentials() == ("password-of-pbx-a", "key-of-pbx-a")
    assert "This host cannot register itself." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://api"}, "crowdsec.url: must be an address such as"),
        ({"url": "http://192.0.2.1:8080"}, "crowdsec.url: must begin with https"),
        ({"machine": "--force"}, "crowdsec.machine: must be a name of letters"),
        ({"key_file": Path("/gone")}, "--crowdsec-password-file and --crowdsec-key-file are needed both"),
        (
            {"key_file": Path("/gone"), "password_file": Path("/gone")},
            "--crowdsec-password-file: /gone cannot be read: No such file",
        ),
    ],
)
def test_wrong_options_change_nothing(place: Place, options: dict[str, Any], message: str) -> None:
    """They are refused before the first change."""
    before = place.host.digest()
    with pytest.raises((ConfigError, SetupError), match=re.escape(message)):
        place.setup(**options)
    assert differing(before, place.host.digest()) == []


def test_another_api_in_the_configuration_is_never_replaced(place: Place) -> None:
    """The administrator decides which API counts."""
    assert place.setup()
    complete = place.host.digest()

    with pytest.raises(SetupError, match=r"whose url is .*:8080, not http://127\.0\.0\.1:9; fix"):
        place.setup(url="http://127.0.0.1:9")
    with pytest.raises(SetupError, match="whose machine is pbx-a, not pbx-b; fix: "):
        place.setup(machine="pbx-b")
    assert differing(complete, place.host.digest()) == []


@pytest.mark.parametrize("name", ["config", "folder"])
def test_a_configuration_that_another_user_can_change_is_not_used(place: Place, name: str) -> None:
    """Root would run its commands for that user."""
    config = place.config
    os.chown(config if name == "config" else config.parent, 4242, 4243)
    config.parent.chmod(0o755)

    with pytest.raises(SetupError, match=r"config\.yaml is not root's alone"):
        place.setup()


def test_a_registration_that_stays_is_named_at_the_undo(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without cscli the administrator gets the commands."""
    assert place.setup()
    monkeypatch.setenv("PATH", os.environ["PATH"].removeprefix(f"{tree()}/usr/bin:"))

    assert not place.undo()
    shown = capsys.readouterr().err
    assert (
        "stays registered at CrowdSec: cscli is not installed any more; fix: cscli machines delete" in shown
    )
    assert "cscli bouncers delete pbx-a" in shown
