"""Ban lengths: fail2ban's formulas as a list that can be reached."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.config.converters import MAX_DURATION
from ringfence.detect.rules import RETURN_WITHIN
from ringfence.fail2ban.carried import OWN, ladder_of
from ringfence.fail2ban.jails import Jail

DAY = 86_400


def ladder(**options: str) -> tuple[tuple[float, ...], list[str]]:
    """Return the ban lengths of a jail with these options (``x`` is ``bantime.x``), and the notes."""
    notes: list[str] = []
    named = {name if name == "bantime" else f"bantime.{name}": text for name, text in options.items()}
    return ladder_of(Jail("asterisk", named, {}), notes.append), notes


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

    assert steps == (MAX_DURATION,)
    assert "is permanent" in notes


@pytest.mark.parametrize("bantime", ["", "soon", "0x10"])
def test_an_invalid_length(bantime: str) -> None:
    """Without a valid length the list is empty, with a note."""
    steps, [notes] = ladder(bantime=bantime)

    assert steps == ()
    assert notes.endswith("ringfence's default lengths apply")


@pytest.mark.parametrize(
    ("bantime", "seconds"), [("0", 1), ("100 years", MAX_DURATION), ("0.5", 1), ("1.2", 2)]
)
def test_a_length_is_kept_within_what_can_be(bantime: str, seconds: float) -> None:
    """Zero, too large and fractional lengths become valid ones."""
    assert ladder(bantime=bantime)[0] == (seconds,)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"maxtime": "1h"}, (600, 1200, 2400, 3600)),
        ({"maxtime": "10m"}, (600,)),
        ({"maxtime": "5m"}, (600,)),
        ({"factor": "3", "maxtime": "2h"}, (600, 3600, 7200)),
        ({"factor": "1/4", "maxtime": "20m"}, (600, 600, 600, 1200)),
        ({"multipliers": "1 2 4 8"}, (600, 1200, 2400, 4800)),
        ({"multipliers": "1 5 30 60 300 720 1440 2880", "maxtime": "1d"}, (600, 3000, 18_000, 36_000, DAY)),
        ({"multipliers": "7"}, (600,)),
        ({"multipliers": "1 3 2", "factor": "2"}, (600, 3600, 2400)),
        (
            {"formula": "ban.Time * (1<<(ban.Count if ban.Count<20 else 20)) * banFactor", "maxtime": "20m"},
            (600, 1200),
        ),
        (
            {
                "formula": "ban.Time * math.exp(float(ban.Count+1)*banFactor)/math.exp(1*banFactor)",
                "factor": "2.0 / 2.885385",
                "maxtime": "40m",
            },
            (600, 1200, 2400),
        ),
    ],
)
def test_growing_bans_are_a_list(options: dict[str, str], steps: tuple[float, ...]) -> None:
    """The lengths equal the results of fail2ban's multipliers and formulas, to the second."""
    found, notes = ladder(bantime="10m", increment="true", **options)

    assert found == pytest.approx(steps, abs=1)
    assert notes == []


def test_unreachable_lengths_are_left_out() -> None:
    """Earlier bans count for 30 days: lengths that cannot be reached are left out, with a note."""
    steps, [notes] = ladder(bantime="1d", increment="true")

    assert [step / DAY for step in steps] == [1, 2, 4, 8, 16]
    assert notes == "longer bans are not reached: earlier bans are remembered for 30 days"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"formula": "ban.Time * 17"}, "a formula is not evaluated"),
        ({"multipliers": "1 two"}, "multipliers 1 two are not whole numbers"),
        ({"multipliers": "1 " + "9" * 20}, "multipliers are too large"),
        ({"factor": "x"}, "bantime.factor x: not a time"),
        ({"maxtime": "never"}, "bantime.maxtime never: not a time"),
    ],
)
def test_an_unsupported_growth(options: dict[str, str], why: str) -> None:
    """After the first length follow ringfence's longer defaults, with a note."""
    steps, [notes] = ladder(bantime="2h", increment="true", **options)

    assert steps == (7200, *OWN[1:])
    assert notes == f"bantime.increment: {why}; ringfence's default lengths follow the first"


@given(
    st.fixed_dictionaries(
        {"bantime": st.from_regex(r"-?[0-9]{1,12}[smhdwy]?", fullmatch=True)},
        optional={
            "factor": st.from_regex(r"-?[0-9]{1,9}(\.[0-9]{1,3})?", fullmatch=True),
            "maxtime": st.from_regex(r"-?[0-9]{1,9}[smhdwy]?", fullmatch=True),
            "multipliers": st.lists(st.integers(-(10**12), 10**12), max_size=60).map(
                lambda numbers: " ".join(map(str, numbers))
            ),
            "formula": st.sampled_from(
                ["", "x", "ban.Time * math.exp(float(ban.Count+1)*banFactor)/math.exp(1*banFactor)"]
            ),
        },
    )
)
def test_every_list_can_be_configured(options: dict[str, str]) -> None:
    """Any numbers result in a short list of valid, reachable lengths."""
    steps, _ = ladder(increment="yes", **options)

    assert 1 <= len(steps) <= 50
    assert all(0 < step <= MAX_DURATION and step == int(step) for step in steps)
    assert sum(steps[:-1]) < RETURN_WITHIN
