"""The lengths of bans: fail2ban's formulas as a list, and never more than can be reached."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.detect.rules import RETURN_WITHIN
from ringfence.fail2ban.jails import Jail
from ringfence.fail2ban.ladder import OWN, ladder_of
from ringfence.values import MAX_DURATION

DAY = 86_400


def ladder(**options: str) -> tuple[tuple[float, ...], list[str]]:
    """Give the lengths of a jail with these options (``x`` is ``bantime.x``), and what was said."""
    said: list[str] = []
    named = {name if name == "bantime" else f"bantime.{name}": text for name, text in options.items()}
    return ladder_of(Jail("asterisk", named, {}), said.append), said


def test_without_increment_every_ban_is_as_long() -> None:
    """One length, and a word on ringfence's own."""
    assert ladder(bantime="10m") == (
        (600,),
        ["every ban is as long as the first, as in fail2ban; ringfence's own grow on return: 1h, 6h, 1d, 7d"],
    )


def test_a_ban_for_ever_is_as_long_as_can_be() -> None:
    """Below 0 fail2ban never lets go; the longest there is takes its place, and that is said."""
    steps, [said] = ladder(bantime="-1", increment="true")

    assert steps == (MAX_DURATION,)
    assert "for ever" in said


@pytest.mark.parametrize("bantime", ["", "soon", "0x10"])
def test_what_is_no_time_leaves_the_default(bantime: str) -> None:
    """Without a length that can be read none is given, and that is said."""
    steps, [said] = ladder(bantime=bantime)

    assert steps == ()
    assert said.endswith("ringfence's own lengths hold")


@pytest.mark.parametrize(
    ("bantime", "seconds"), [("0", 1), ("100 years", MAX_DURATION), ("0.5", 1), ("1.2", 2)]
)
def test_a_length_is_kept_within_what_can_be(bantime: str, seconds: float) -> None:
    """Nothing, too much and fractions become what a ban can be."""
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
    """The length after so many returns is what fail2ban's multipliers and formulas give, to the second."""
    found, said = ladder(bantime="10m", increment="true", **options)

    assert found == pytest.approx(steps, abs=1)
    assert said == []


def test_what_is_never_reached_is_left_out() -> None:
    """Returns are remembered for 30 days: a length that takes longer to earn is not listed; that is said."""
    steps, [said] = ladder(bantime="1d", increment="true")

    assert [step / DAY for step in steps] == [1, 2, 4, 8, 16]
    assert said == "longer bans are not reached: returns are remembered for 30 days"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"formula": "ban.Time * 17"}, "a formula is not evaluated"),
        ({"multipliers": "1 two"}, "multipliers 1 two are no whole numbers"),
        ({"multipliers": "1 " + "9" * 20}, "multipliers are too large"),
        ({"factor": "x"}, "bantime.factor x: not a time"),
        ({"maxtime": "never"}, "bantime.maxtime never: not a time"),
    ],
)
def test_what_cannot_be_told_is_ringfences_own(options: dict[str, str], why: str) -> None:
    """After the first length come the own ones that are longer, and that is said."""
    steps, [said] = ladder(bantime="2h", increment="true", **options)

    assert steps == (7200, *OWN[1:])
    assert said == f"bantime.increment: {why}; ringfence's own lengths follow the first"


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
    """Whatever the numbers are: a short list of lengths that may be, of which each can be reached."""
    steps, _ = ladder(increment="yes", **options)

    assert 1 <= len(steps) <= 50
    assert all(0 < step <= MAX_DURATION and step == int(step) for step in steps)
    assert sum(steps[:-1]) < RETURN_WITHIN
