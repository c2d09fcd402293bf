"""The changes that setup plans, by layout and by what is there already."""

import os
import socket
import subprocess
import tomllib
from ipaddress import ip_network
from pathlib import Path

import pytest
from attrs import evolve
from tests.features.setup.world import (
    EXEMPT,
    GID,
    SECRET,
    SERVICE,
    UID,
    Host,
    allow_any_reader,
    make_host,
    with_exempt,
)

from ringfence.errors import HostError, SetupError
from ringfence.features.setup.find import Found
from ringfence.features.setup.manager import checked_state, read_manager
from ringfence.features.setup.plan import LogPath, ami_host, log_path, own_address, plan
from ringfence.features.setup.texts import manager_user
from ringfence.host.asterisk_conf import AsteriskFiles
from ringfence.host.asterisk_logging import read_asterisk
from ringfence.host.file_changes import FileChange, FileState, FolderChange, FolderState
from ringfence.values.network import Network
from ringfence.values.secret import Secret

pytestmark = pytest.mark.kernel  # a host in a folder has files of several users


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Host:
    return make_host(tmp_path)


@pytest.fixture(autouse=True)
def _reader(monkeypatch: pytest.MonkeyPatch) -> None:
    allow_any_reader(monkeypatch)
    monkeypatch.setattr("ringfence.features.setup.plan.full_name", str)


def mounted(path: Path, *, read_only: bool) -> None:
    """Mount a file onto itself, as container runtimes do."""
    subprocess.run(["mount", "--bind", str(path), str(path)], check=True)
    if read_only:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)


def files_of(host: Host, found: Found | None = None) -> dict[str, FileState]:
    """Return the planned files by their path on the host."""
    changes = plan(found or host.found(), host.paths).changes
    return {
        str(change.path.relative_to(host.folder)): change.after
        for change in changes
        if isinstance(change, FileChange)
    }


def in_container(found: Found, address: str | None = "127.0.0.9") -> Found:
    """Return what would be found if Asterisk ran in a container on a bridge.

    No process has the number 0, so nothing of Asterisk's root folder is the same as here.
    """
    server = evolve(found.asterisk.server, pid=0, same_root=False, same_network=False)
    files = AsteriskFiles(found.asterisk.files.folder, named=found.asterisk.files.folder)
    return evolve(found, asterisk=evolve(found.asterisk, server=server, files=files, address=address))


def test_a_compiled_asterisk_gets_every_file(host: Host) -> None:
    """AMI is switched on for this host alone, and both additions are included."""
    files = files_of(host)
    manager = files["etc/asterisk/manager.conf"].content.decode()

    assert [*files] == [
        "etc/ringfence/ringfence.toml",
        "etc/asterisk/manager.d/ringfence.conf",
        "etc/asterisk/manager.conf",
        "etc/asterisk/ringfence.logger.conf",
        "etc/asterisk/logger.conf",
    ]
    assert "enabled = yes\n" in manager
    assert "bindaddr = 127.0.0.1\n" in manager
    assert manager.endswith('#tryinclude "manager.d/ringfence.conf"\n')
    assert f"secret = {SECRET}\n" in files["etc/asterisk/manager.d/ringfence.conf"].content.decode()


def test_new_files_in_a_folder_of_root_belong_to_root(host: Host) -> None:
    """Asterisk reads them by its group, and cannot write into a folder that it only claimed as its own."""
    for path in (host.etc, host.etc / "manager.d"):
        path.mkdir(exist_ok=True)
        os.chown(path, 0, 0)
    (host.etc / "logger.conf").unlink()

    new = {name: one for name, one in files_of(host).items() if not (host.folder / name).exists()}
    owners = {name: (one.uid, one.gid) for name, one in new.items() if "asterisk/" in name}
    assert owners == dict.fromkeys(
        (f"etc/asterisk/{name}.conf" for name in ("manager.d/ringfence", "ringfence.logger", "logger")),
        (0, GID),
    )


def test_the_name_of_this_host_needs_no_name_server(host: Host) -> None:
    """Asterisk looks its own name up; a file that has it, or a container's Asterisk, needs no change."""
    assert "etc/hosts" not in files_of(host)
    host.paths.hosts.write_text("127.0.0.1 localhost", "utf-8")
    host.paths.hosts.chmod(0o644)
    after = files_of(host)["etc/hosts"]
    assert after.content.decode() == f"127.0.0.1 localhost\n127.0.1.1 {socket.gethostname()}\n"
    assert after.mode == 0o644
    assert "etc/hosts" not in files_of(host, in_container(host.found()))

    host.paths.hosts.write_bytes(after.content)
    assert "etc/hosts" not in files_of(host)


def test_the_name_of_this_host_joins_its_domain(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name joins the line of an own address that has it with a domain. Unknown addresses are foreign."""
    monkeypatch.setattr("socket.gethostname", lambda: "pbx")
    monkeypatch.setattr(
        "ringfence.features.setup.plan.read_addresses", lambda: frozenset({ip_network("192.0.2.5")})
    )
    host.paths.hosts.write_text("192.0.2.5 pbx.example.org\n", "utf-8")
    assert files_of(host)["etc/hosts"].content == b"192.0.2.5 pbx.example.org pbx\n"

    def broken() -> frozenset[Network]:
        raise HostError("this host's own addresses cannot be read by rtnetlink")

    monkeypatch.setattr("ringfence.features.setup.plan.read_addresses", broken)
    assert files_of(host)["etc/hosts"].content == b"192.0.2.5 pbx.example.org\n127.0.1.1 pbx\n"


def test_a_domain_that_only_name_servers_know_is_kept(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that setup adds answers ``hostname --fqdn`` from then on, so it has the domain too."""
    monkeypatch.setattr("socket.gethostname", lambda: "pbx")
    monkeypatch.setattr("ringfence.features.setup.plan.full_name", "{}.example.org".format)
    host.paths.hosts.write_text("127.0.0.1 localhost\n", "utf-8")

    added = b"127.0.1.1 pbx.example.org pbx\n"
    assert files_of(host)["etc/hosts"].content == b"127.0.0.1 localhost\n" + added


@pytest.mark.parametrize("why", ["read-only", "mounted", "no file"])
def test_a_hosts_file_that_cannot_be_changed_stops_nothing(host: Host, why: str) -> None:
    """The line is only useful. A note has it, for a system whose files are read-only, and for a container."""
    path = host.paths.hosts
    if why == "no file":
        path.mkdir()
    else:
        path.write_text("127.0.0.1 localhost\n", "utf-8")
        mounted(path, read_only=why == "read-only")
    try:
        planned = plan(host.found(), host.paths)
        for change in planned.changes:
            change.apply()
    finally:
        if why != "no file":
            subprocess.run(["umount", str(path)], check=True)

    [note] = [note for note in planned.notes if str(path) in note]
    assert note.startswith(f"{path} cannot be changed (")
    assert note.endswith(f'; fix: add the line "127.0.1.1 {socket.gethostname()}" to it')


def test_a_long_hosts_file_gets_its_line_once(host: Host) -> None:
    """A list of advertisers may be as long as any file that setup changes."""
    host.paths.hosts.write_text("0.0.0.0 advertiser.example\n" * 80_000, "utf-8")
    host.paths.hosts.write_bytes(files_of(host)["etc/hosts"].content)

    assert "etc/hosts" not in files_of(host)


def test_only_asterisk_can_read_the_password(host: Host) -> None:
    """The manager user belongs to Asterisk's user, the folder of the log to both."""
    changes = plan(host.found(), host.paths).changes
    after = {change.path: change.after for change in changes}
    user = after[host.etc / "manager.d/ringfence.conf"]

    assert (user.mode, user.uid, user.gid) == (0o640, UID, GID)
    assert after[host.paths.logs] == FolderState(0o2750, UID, SERVICE.gid)


def test_a_venv_gets_the_files_that_a_package_installs(tmp_path: Path) -> None:
    """A password is generated, which only root and the service can read, and is that of the manager user."""
    host = make_host(tmp_path, packaged=False)
    changes = plan(host.found(), host.paths).changes
    files = files_of(host)
    secret = files["etc/ringfence/asterisk.secret"]

    assert (len(secret.content), secret.mode, secret.uid, secret.gid) == (48, 0o640, 0, SERVICE.gid)
    [user] = [
        change.after
        for change in changes
        if isinstance(change, FileChange) and change.path.match("manager.d/*.conf")
    ]
    [own] = [
        change.after
        for change in changes
        if isinstance(change, FileChange) and change.path == host.paths.secret
    ]
    assert b"secret = " + own.content in user.content


def test_after_the_changes_there_is_nothing_to_change(host: Host) -> None:
    """A second plan has no change, also if other networks are found later and the file is unchanged."""
    first = plan(host.found(), host.paths)
    for change in first.changes:
        change.apply()
    assert plan(host.found(), host.paths).changes == ()

    written = {change.path: change.after for change in first.changes if isinstance(change.after, FileState)}
    [again] = plan(with_exempt(host.found(), "10.0.0.0/24"), host.paths, written).changes
    assert again.path == host.paths.config


def test_networks_that_an_earlier_run_found_stay_allowed(host: Host) -> None:
    """A tunnel may be down when setup runs again; its phones must not lose what they had."""
    first = plan(with_exempt(host.found(), "10.8.0.0/24"), host.paths)
    for change in first.changes:
        change.apply()
    written = {change.path: change.after for change in first.changes if isinstance(change.after, FileState)}
    [again] = plan(with_exempt(host.found(), "192.0.2.7"), host.paths, written).changes

    assert isinstance(again, FileChange)
    networks = tomllib.loads(again.after.content.decode())["allow"]["networks"]
    assert {"10.8.0.0/24", "192.0.2.7/32"} <= set(networks)


def test_a_configuration_of_the_administrator_stays(host: Host) -> None:
    """Networks that it lacks are named."""
    host.paths.config.write_text(
        '[allow]\nnetworks = ["192.0.2.0/24"]\n[rules.guess]\nattempts = 9\n', "utf-8"
    )
    found = with_exempt(host.found(), "192.0.2.7", "10.0.0.0/24")
    planned = plan(found, host.paths)

    assert host.paths.config not in {change.path for change in planned.changes}
    assert [note for note in planned.notes if "networks" in note] == [
        "not in its [allow] networks: 10.0.0.0/24 (a test)"
    ]


@pytest.mark.parametrize("own", ["other", ""])
def test_a_manager_user_with_another_password_is_an_error(host: Host, own: str) -> None:
    """The administrator decides which one is right."""
    (host.etc / "manager.conf").write_text(
        f"[general]\nenabled = yes\n[ringfence]\nsecret = {own}\n", "utf-8"
    )

    with pytest.raises(SetupError, match=r"has a manager user \[ringfence\] already"):
        plan(host.found(), host.paths)


@pytest.mark.parametrize("text", ["", "two words", "a;b", "abc \n", "\tabc"])
def test_a_password_that_asterisk_would_read_differently_is_refused(host: Host, text: str) -> None:
    """A semicolon begins a comment in Asterisk's files, and Asterisk removes blanks at the ends."""
    host.paths.secret.write_text(text, "utf-8")

    with pytest.raises(SetupError, match="is empty, or has a character that Asterisk's files cannot have"):
        plan(host.found(), host.paths)


def test_a_line_end_after_the_password_stays(host: Host) -> None:
    """The file is right as it is, and the manager user gets the password alone."""
    host.paths.secret.write_text(f"{SECRET}\n", "utf-8")
    files = files_of(host)

    assert "etc/ringfence/asterisk.secret" not in files
    assert f"secret = {SECRET}\n" in files["etc/asterisk/manager.d/ringfence.conf"].content.decode()


def test_an_existing_manager_user_and_channel_are_used(host: Host) -> None:
    """After an installation by hand only ringfence's own files are missing."""
    manager = f"[general]\nenabled = yes\n{manager_user(Secret(SECRET))}"
    (host.etc / "manager.conf").write_text(manager, "utf-8")
    channel = f"[general]\n[logfiles]\n{host.paths.logs}/ringfence => notice,security\n"
    (host.etc / "logger.conf").write_text(channel, "utf-8")

    assert [*files_of(host)] == ["etc/ringfence/ringfence.toml"]


def test_an_existing_channel_may_have_a_relative_name(host: Host) -> None:
    """Asterisk writes such a log below the folder of its logs, where the log of a container is."""
    channel = "[general]\n[logfiles]\nringfence/ringfence => notice,security\n"
    (host.etc / "logger.conf").write_text(channel, "utf-8")
    planned = files_of(host, in_container(host.found()))

    assert not {"etc/asterisk/logger.conf", "etc/asterisk/ringfence.logger.conf"} & planned.keys()


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("read = security,system", "read = all", "read = all"),
        ("write = reporting", "write = reporting,command", "write = reporting,command"),
        ("deny = ::/0\n", "", "it may log in from everywhere"),
        ("permit = ::1/128", "permit = 0.0.0.0/0.0.0.0", "permit = 0.0.0.0/0.0.0.0"),
        ("permit = ::1/128", "permit = ::1,192.0.2.1", "permit = ::1,192.0.2.1"),
    ],
)
def test_a_manager_user_with_more_rights_is_refused(host: Host, old: str, new: str, shown: str) -> None:
    """The password of that user would permit more than ringfence needs."""
    user = manager_user(Secret(SECRET))
    assert old in user
    (host.etc / "manager.conf").write_text(f"[general]\nenabled = yes\n{user.replace(old, new)}", "utf-8")

    with pytest.raises(SetupError, match="with more rights than it needs: ") as caught:
        plan(host.found(), host.paths)
    assert shown in str(caught.value)
    assert SECRET not in str(caught.value)


def test_no_password_is_shown(tmp_path: Path) -> None:
    """Neither that of the new file nor one in a comment, nor its other occurrences."""
    host = make_host(tmp_path, packaged=False)
    manager = "[general]\nenabled = no\n;secret = hidden-one\n; was hidden-one\n[x]\nsecret=hidden-two ; y\n"
    (host.etc / "manager.conf").write_text(manager, "utf-8")
    changes = plan(host.found(), host.paths).changes
    shown = "\n".join(line for change in changes for line in change.shown())
    [own] = [c.after for c in changes if isinstance(c, FileChange) and c.path == host.paths.secret]

    assert own.content.decode() not in shown
    assert "hidden" not in shown
    assert f"file {host.paths.secret}, with a password: mode 0640, owner 0:{SERVICE.gid}" in shown


def test_a_generated_file_is_never_changed(tmp_path: Path) -> None:
    """If AMI is off in a file that a product generates, the administrator has to switch it on there."""
    host = make_host(tmp_path, "freepbx")
    assert not {"etc/asterisk/manager.conf", "etc/asterisk/logger.conf"} & files_of(host).keys()

    file = host.etc / "manager.conf"
    file.write_text(file.read_text("utf-8").replace("enabled = yes", "enabled = no"), "utf-8")
    with pytest.raises(SetupError, match=r"FreePBX or Issabel writes .* itself; fix: switch the manager"):
        plan(host.found(), host.paths)


def test_an_addition_keeps_what_is_there(tmp_path: Path) -> None:
    """The other users of manager_custom.conf, and the mode and owners of the file, stay."""
    host = make_host(tmp_path, "freepbx")
    file = host.etc / "manager_custom.conf"
    file.chmod(0o664)
    after = files_of(host)["etc/asterisk/manager_custom.conf"]

    assert after.content.startswith(file.read_bytes())
    assert (after.mode, after.uid) == (0o664, UID)


@pytest.mark.parametrize(
    ("logger", "added"),
    [
        (None, "[general]|[logfiles]|console => notice,warning,error"),
        ("", "[general]|[logfiles]"),
        ("\ufeff[LogFiles]\r\nfull => error\r\n", "[general]|[logfiles](+)"),
        ("[General]\ndateformat = %s\n", "[general](+)|[logfiles]"),
        ("[general](!)\n[logfiles]\n", "[general]|[logfiles](+)"),
        ("[general] (!)\n[logfiles] (!)\n[logfiles]\nx => error\n", "[general](+)|[logfiles](+)"),
        ("#include own.conf\n", "[general](+)|[logfiles]"),
    ],
)
def test_the_log_channel_adds_to_the_sections_that_exist(host: Host, logger: str | None, added: str) -> None:
    """A section is written where logger.conf has none, and Asterisk then writes the log."""
    (host.etc / "own.conf").write_text("[general]\n", "utf-8")
    (host.etc / "logger.conf").unlink()
    if logger is not None:
        (host.etc / "logger.conf").write_bytes(logger.encode())
        os.chown(host.etc / "logger.conf", UID, UID)
    planned = plan(host.found(), host.paths)
    for change in planned.changes:
        change.apply()

    lines = (host.etc / "ringfence.logger.conf").read_text("utf-8").split("\n")
    assert [line for line in lines if line.startswith(("[", "console"))] == added.split("|")
    assert AsteriskFiles(host.etc).fault_of("logger.conf") == ""
    known = read_asterisk(AsteriskFiles(host.etc))
    assert known is not None
    assert known.channels[host.paths.logs / "ringfence"] == {"notice", "security"}
    assert plan(host.found(), host.paths).changes == ()


def test_the_name_of_the_log_may_end_with_the_name_of_the_host(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With appendhostname the daemon reads the file that Asterisk writes; a container's name is not known."""
    monkeypatch.setattr("socket.gethostname", lambda: "pbx")
    (host.etc / "logger.conf").write_text("[general]\nappendhostname = yes\n[logfiles]\n", "utf-8")
    contained = plan(in_container(host.found()), host.paths)
    planned = plan(host.found(), host.paths)
    for change in planned.changes:
        change.apply()

    file = host.paths.logs / "ringfence.pbx"
    assert planned.log == LogPath(file, host.paths.logs / "ringfence", default=False)
    assert f'paths = ["{file}"]' in host.paths.config.read_text("utf-8")
    known = read_asterisk(AsteriskFiles(host.etc))
    assert known is not None
    assert known.channels == {file: {"notice", "security"}}
    assert plan(host.found(), host.paths).changes == ()
    assert contained.log is None
    assert contained.notes[0].startswith("no log is read: appendhostname in logger.conf")


@pytest.mark.parametrize(
    "manager",
    [
        "\ufeff[General]\r\nenabled = no\r\n",
        "[general](!)\nenabled = no\n",
        "[general]\nenabled = no\n[general]\nenabled = no\n",
        "[general] (!)\n[a]\n[general](+)\nenabled = no\n",
        "#include own.conf\n",
        "",
    ],
)
def test_ami_is_enabled_in_every_kind_of_file(host: Host, manager: str) -> None:
    """The option stands where Asterisk reads it, and the manager user is read."""
    (host.etc / "own.conf").write_text("[general]\nport = 5039\n", "utf-8")
    (host.etc / "manager.conf").write_bytes(manager.encode())
    for change in plan(host.found(), host.paths).changes:
        change.apply()

    found = read_manager(AsteriskFiles(host.etc))
    assert (found.enabled, found.bindaddr, found.user) == (True, "127.0.0.1", True)


@pytest.mark.parametrize(
    ("name", "text", "lost"),
    [
        (
            "manager_custom.conf",
            "[wallboard\n",
            "the manager user from .*/manager.conf: .*custom.conf:1: a sec",
        ),
        ("logger_logfiles_custom.conf", "--;\n", "the log channel from .*/logger.conf: an included file or"),
        ("manager_custom.conf", ";--\n", "the manager user from"),
    ],
)
def test_an_addition_that_asterisk_would_not_read_is_an_error(
    tmp_path: Path, name: str, text: str, lost: str
) -> None:
    """The dry run finds it too, because nothing must be written for that."""
    host = make_host(tmp_path, "freepbx")
    (host.etc / name).write_text(text, "utf-8")

    with pytest.raises(SetupError, match=f"^Asterisk would not read {lost}"):
        plan(host.found(), host.paths)


@pytest.mark.parametrize("target", ["/etc/hostname", "/gone/file"])
@pytest.mark.parametrize("name", ["manager.conf", "logger.conf", "manager_custom.conf"])
def test_a_file_that_only_the_container_has_is_an_error(tmp_path: Path, name: str, target: str) -> None:
    """On this host, a link of the container leads to another file or to none, so setup must not follow it."""
    host = make_host(tmp_path, "freepbx")
    found = in_container(host.found())
    found = evolve(found, manager=evolve(found.manager, enabled=True, bindaddr=None))
    (host.etc / name).unlink()
    (host.etc / name).symlink_to(target)

    def planned() -> None:
        for main in ("manager.conf", "logger.conf"):  # read before the plan is made
            checked_state(found.asterisk.files, main)
        plan(found, host.paths)

    with pytest.raises(SetupError, match=rf"/{name} is a link to a file of Asterisk's container, which is"):
        planned()


def test_an_include_that_sets_an_option_again_is_an_error(host: Host) -> None:
    """Setup does not change an included file to enable AMI."""
    (host.etc / "own.conf").write_text("enabled = no\n", "utf-8")
    (host.etc / "manager.conf").write_text("[general]\nenabled = no\n#include own.conf\n", "utf-8")

    with pytest.raises(SetupError, match="would not read that AMI is enabled from"):
        plan(host.found(), host.paths)


def test_an_include_that_opens_ami_to_everybody_is_an_error(host: Host) -> None:
    """Setup enables AMI for this host alone, so no included file may have the last word about its address."""
    (host.etc / "own.conf").write_text("bindaddr = 0.0.0.0\n", "utf-8")
    (host.etc / "manager.conf").write_text("[general]\nenabled = no\n#include own.conf\n", "utf-8")

    with pytest.raises(SetupError, match=r"would not read that AMI listens at 127\.0\.0\.1 alone from"):
        plan(host.found(), host.paths)


def test_the_rotation_names_asterisks_user(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rotation runs as the user of Asterisk, and a file that names this user stays as it is."""
    root = evolve(host.found().asterisk.server, uid=0)
    found = evolve(host.found(), asterisk=evolve(host.found().asterisk, server=root))
    text = files_of(host, found)["etc/logrotate.d/ringfence"].content.decode()

    assert f"{host.paths.logs}/ringfence {{\n    su root ringfence\n" in text
    assert "--no-new-privs /usr/sbin/asterisk -rx 'logger reload' >" in text
    host.paths.logrotate.write_text(text, "utf-8")
    assert "etc/logrotate.d/ringfence" not in files_of(host, found)


def test_an_asterisk_in_a_container_is_reached_over_its_bridge(host: Host) -> None:
    """AMI listens for the host, which alone may log in; the log is in the container's own volume."""
    found = in_container(host.found())
    files = files_of(host, found)

    config = files["etc/ringfence/ringfence.toml"].content.decode()
    assert 'host = "127.0.0.9"' in config
    assert f'paths = ["{host.folder}/var/log/asterisk/ringfence/ringfence"]' in config
    assert "bindaddr = 127.0.0.9\n" in files["etc/asterisk/manager.conf"].content.decode()
    user = files["etc/asterisk/manager.d/ringfence.conf"].content.decode()
    assert f"permit = {own_address('127.0.0.9').network_address}/255.255.255.255\n" in user
    assert log_path(found, host.paths) != log_path(host.found(), host.paths)


def test_ami_on_an_address_of_the_network_permits_that_address(host: Host) -> None:
    """Ringfence connects to that address, so it comes from there."""
    manager = "[general]\nenabled = yes\nport = 5040\nbindaddr = 127.0.0.9\n"
    (host.etc / "manager.conf").write_text(manager, "utf-8")
    files = files_of(host)
    config = files["etc/ringfence/ringfence.toml"].content.decode()
    assert 'host = "127.0.0.9"\nport = 5040\n' in config

    assert own_address("::1") == ip_network("::1")
    assert own_address("127.0.0.9").version == 4
    with pytest.raises(SetupError, match=r"no route to Asterisk at 255\.255\.255\.255"):
        own_address("255.255.255.255")


def test_without_a_volume_for_logs_only_the_other_sources_are_used(host: Host) -> None:
    """No channel is added, and a note names the consequence."""
    found = in_container(host.found())
    planned = plan(evolve(found, asterisk=evolve(found.asterisk, logs=None)), host.paths)

    assert planned.log is None
    assert host.etc / "logger.conf" not in {change.path for change in planned.changes}
    assert planned.notes[0].startswith("no log is read: the log folder of Asterisk's container is no volume")


def test_a_container_without_an_address_is_an_error(host: Host) -> None:
    """The message names the other way."""
    with pytest.raises(SetupError, match="run ringfence beside it, in its network namespace"):
        ami_host(in_container(host.found(), address=None))


def test_networks_have_their_reasons(host: Host) -> None:
    """The reason of each network is a comment of the configuration."""
    text = files_of(host)["etc/ringfence/ringfence.toml"].content.decode()

    assert [f'    "{network}",  # {why}' in text.split("\n") for network, why in EXEMPT.items()] == [True]
    assert isinstance(plan(host.found(), host.paths).changes[1], FolderChange)


def test_a_rotation_for_another_asterisk_is_named(host: Host) -> None:
    """Its script fails silently, and Asterisk goes on writing into the renamed file."""
    root = evolve(host.found().asterisk.server, uid=0)
    found = evolve(host.found(), asterisk=evolve(host.found().asterisk, server=root))
    host.paths.logrotate.write_bytes(files_of(host, found)["etc/logrotate.d/ringfence"].content)
    moved = evolve(root, program="/opt/asterisk/sbin/asterisk")
    planned = plan(evolve(found, asterisk=evolve(found.asterisk, server=moved)), host.paths)

    told = [*planned.notes, *(str(change.path) for change in planned.changes)]
    assert any(str(host.paths.logrotate) in line for line in told)
