"""The codes of alarms: dotted names, each with sentences, and each in use."""

import re
from pathlib import Path

import pytest

import ringfence
from ringfence.alarm_codes import Alarm, AlarmCode, AnyAlarmCode, every_code, is_about_setup

SOURCES = Path(ringfence.__file__).parent


@pytest.mark.parametrize("code", every_code())
def test_a_code_is_a_dotted_name_with_two_sentences(code: AnyAlarmCode) -> None:
    """A code names its area and the alarm, and is the name of its member; both texts are sentences."""
    assert re.fullmatch(r"[a-z]+\.[a-z_]+", code)
    assert code.name == code.upper().replace(".", "_")
    assert code.meaning.endswith(".")
    assert code.action.endswith(".")


def test_every_code_is_raised() -> None:
    """Each code is used by some source file besides the table."""
    used = {
        name
        for path in SOURCES.rglob("*.py")
        for name in re.findall(r"AlarmCode\.([A-Z_]+)", path.read_text("utf-8"))
    }
    assert used == {code.name for code in every_code()}


def test_alarms_about_the_setup_are_known_by_their_codes() -> None:
    """``check`` reports alarms about the host's setup, and none about phones, passwords and attackers."""
    assert {code for code in every_code() if not is_about_setup(code)} == {
        code
        for code in every_code()
        if code.startswith(
            (
                *("account.", "attack.", "evidence.", "friend.", "office."),
                *("password.", "phone.", "phones.", "source."),
            )
        )
    }
    assert is_about_setup("firewall.damaged")
    assert is_about_setup("unknown.code")


def test_an_alarm_as_json() -> None:
    """Commands receive the code, the subject and the text."""
    alarm = Alarm(AlarmCode.LIST_FULL, "deny list", "too many networks")

    assert alarm.as_json() == {"code": "list.full", "subject": "deny list", "text": "too many networks"}
