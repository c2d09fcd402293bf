"""The settings of AMI, as manager.conf has them."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from attrs import evolve
from tests.features.setup.test_asterisk import SERVER

from ringfence.errors import SetupError
from ringfence.features.setup.manager import ManagerConf, checked_state, read_manager
from ringfence.host.asterisk_conf import AsteriskFiles


def read(folder: Path, text: str) -> ManagerConf:
    """Read a manager.conf with this text."""
    (folder / "manager.conf").write_text(text, "utf-8")
    return read_manager(AsteriskFiles(folder))


def test_settings_are_read_with_their_defaults(tmp_path: Path) -> None:
    """Without a file AMI is off; with one, each setting is read."""
    assert read_manager(AsteriskFiles(tmp_path)) == ManagerConf(tmp_path / "manager.conf", None)

    found = read(tmp_path, "[general]\nenabled = yes\nport = 5039\nwebenabled = on\n")
    assert (found.enabled, found.port, found.web, found.host, found.user) == (
        True,
        5039,
        True,
        "127.0.0.1",
        False,
    )


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", None),
        ("::", None),
        ("[::1]:5038", "::1"),
        ("192.0.2.1:5038", "192.0.2.1"),
        ("a host", None),
    ],
)
def test_the_address_of_ami(tmp_path: Path, text: str, address: str | None) -> None:
    """An address that means every address is None."""
    assert read(tmp_path, f"[general]\nbindaddr = {text}\n").bindaddr == address


def test_an_existing_user_is_found_with_its_password(tmp_path: Path) -> None:
    """The user may be in an included file; the password is masked."""
    (tmp_path / "users.conf").write_text("[ringfence]\nsecret = abc\n", "utf-8")
    found = read(tmp_path, "[general]\n#include users.conf\n")

    assert found.user
    assert found.secret is not None
    assert found.secret.reveal() == "abc"
    assert "abc" not in repr(found.secret)


def test_a_user_without_options_counts(tmp_path: Path) -> None:
    """Another section of the same name would be a second user."""
    assert read(tmp_path, "[general]\n[ringfence]\n").user


def test_a_file_that_asterisk_refuses_is_an_error(tmp_path: Path) -> None:
    """The message has file and line."""
    with pytest.raises(
        SetupError,
        match=r"^Asterisk would refuse .*manager\.conf:1: a section has no closing \]; fix this first$",
    ):
        read(tmp_path, "[general\n" * 9)


@pytest.mark.kernel
def test_a_file_is_read_with_the_rights_of_asterisk(tmp_path: Path) -> None:
    """Root can read the file, but Asterisk's user cannot, neither by its group nor by another one."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    file = path / "manager.conf"
    file.write_text("[general]\n", "utf-8")
    file.chmod(0o640)
    user = evolve(SERVER, uid=4242, gid=4243, groups=(4243, 4250))
    try:
        for group in (4243, 4250):
            os.chown(file, 0, group)
            assert checked_state(AsteriskFiles(path), file.name, user) is not None
        os.chown(file, 0, 0)
        with pytest.raises(SetupError, match="cannot be read: Permission denied"):
            checked_state(AsteriskFiles(path), file.name, user)
        assert (os.geteuid(), os.getegid()) == (0, 0)
    finally:
        shutil.rmtree(path)
