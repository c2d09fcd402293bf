"""The recordings: they are complete, and are bytes as received."""

import pytest
from tests.support.captures import FOLDER, Capture, capture, captures


@pytest.mark.parametrize("recorded", captures(), ids=str)
def test_every_recording_is_complete(recorded: Capture) -> None:
    """Each scenario has its AMI stream, in complete packets, and both logs."""
    stream = recorded.ami.read_bytes()

    assert not stream or stream.endswith(b"\r\n\r\n")
    assert recorded.security_log.is_file()
    assert recorded.messages_log.is_file()


def test_no_recording_is_left_out() -> None:
    """Every file of the folder is in an index, except the greeting of AMI."""
    listed = {recorded.ami for recorded in captures()}

    assert {path.name for path in set(FOLDER.glob("*/*.ami")) - listed} == {"login.ami"}


def test_a_recording_is_found_by_its_name() -> None:
    """A scenario is looked up by set and name, and has the true number of attempts."""
    assert capture("asterisk-22", "good-register").attempts == 0
    assert capture("asterisk-22", "wrong-password-register").attempts == 3
