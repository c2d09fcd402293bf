"""Ban lengths: fail2ban's first length, and ringfence's own after it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.clock import TEN_YEARS
from ringfence.features.fail2ban.carried import OWN, ladder_of
from ringfence.features.fail2ban.jails import Jail


def ladder(**options: str) -> tuple[tuple[float, ...], list[str]]:
    """Return the ban lengths of a jail with these options (``x`` is ``bantime.x``), and the notes."""
    notes: list[str] = []
    named = {name if name == "bantime" else f"bantime.{name}": text for name, text in options.items()}
    return ladder_of(Jail("asterisk", named), notes.append), notes


def test_without_increment_every_ban_is_as_long() -> None:
    """The list has one length, with a note on ringfence's defaults."""
    assert ladder(bantime="10m") == (
        (600,),
        [
            (
                "every ban is as long as the first, as in fail2ban; ringfence's default lengths grow with "
                "each repeat ban: 1h, 6h, 1d, 7d"
            )
        ],
    )


def test_a_permanent_ban() -> None:
    """A permanent ban becomes the longest possible one, with a note."""
    steps, [notes] = ladder(bantime="-1", increment="true")

    assert steps == (TEN_YEARS,)
    assert "is permanent" in notes


@pytest.mark.parametrize("bantime", ["", "soon", "0x10"])
def test_an_invalid_length(bantime: str) -> None:
    """Without a valid length the list is empty, with a note."""
    steps, [notes] = ladder(bantime=bantime)

    assert steps == ()
    assert notes.endswith("ringfence's default lengths apply")


@pytest.mark.parametrize(("bantime", "seconds"), [("0", 1), ("100 years", TEN_YEARS), ("0.5", 1), ("1.2", 2)])
def test_a_length_is_kept_within_what_can_be(bantime: str, seconds: float) -> None:
    """Zero, too large and fractional lengths become valid ones."""
    assert ladder(bantime=bantime)[0] == (seconds,)


@pytest.mark.parametrize("bantime", ["2h", "10m", "8d"])
def test_growing_bans_follow_ringfences_lengths(bantime: str) -> None:
    """After the first length follow ringfence's longer defaults, with a note: formulas are not evaluated."""
    steps, [notes] = ladder(bantime=bantime, increment="true", formula="ban.Time * 17", multipliers="1 2")

    assert steps == (steps[0], *(step for step in OWN if step > steps[0]))
    assert notes == "bantime.increment: ringfence's default lengths follow the first"


@given(st.from_regex(r"-?[0-9]{1,12}[smhdwy]?", fullmatch=True))
def test_every_list_can_be_configured(bantime: str) -> None:
    """Any number results in a short list of valid lengths."""
    steps, _ = ladder(bantime=bantime, increment="yes")

    assert 1 <= len(steps) <= 1 + len(OWN)
    assert all(0 < step <= TEN_YEARS and step == int(step) for step in steps)
