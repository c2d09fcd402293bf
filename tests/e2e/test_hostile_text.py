"""A sample of hostile text against real Asterisks, with the default thresholds: only its sender is banned.

``make bench`` runs one case in five, others each day. ``tests/support/hostile_run.py`` runs all, or one.
"""

import random
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.hostile_beds import BEDS
from tests.support.hostile_run import LINE_ENDS, QUICK, Findings, Terms, bed_of, cases_for, run
from tests.support.hostile_text import cases_of

pytestmark = pytest.mark.asterisk

SEED = 1
"""Change it to try another sample; the name of each case that fails is printed."""
NUMBER = 40
REMEMBERED = {
    "16": (
        "16 UDP extension %lf manager",
        "16 UDP extension %lf call-open",
        "16 UDP to_user %lf manager",
        "16 WS to_user %lf manager",
        "16 UDP from_user+nonce not-utf8-behind request-tail",
        "16 WS from_user+nonce not-utf8-behind request-tail",
        "16-pjsip TLS call_id not-utf8-behind request",
        "16-pjsip TCP call_id not-utf8 request",
        "16 TCP to_display cr manager closed",
        "16 TCP nonce cr call closed",
    ),
    "22": (
        "22 UDP call_id+nonce+response splice1 security-tail",
        "22 UDP extension %lf call-open",
        "22 TCP extension %lf manager",
        "22 UDP call_id not-utf8 security",
        "22 AMI user cr manager-dated",
        "22 TLS call_id not-utf8-behind request",
    ),
}
"""Cases that once framed a victim or were not counted."""


IN_THE_LOG = {
    "16": ("16 TCP extension %lf call-open", "16-pjsip TCP extension %lf call-open"),
    "22": ("22 TCP extension %lf call-open", "22 IAX name lf call-open"),
}
"""Cases that once framed a victim when the log was the only source."""


@pytest.mark.parametrize("release", ["16", pytest.param("22", marks=pytest.mark.long)])
def test_hostile_text_bans_only_its_sender(
    request: pytest.FixtureRequest, tmp_path: Path, release: str
) -> None:
    """Each sender is banned at the threshold, and no address in its text is banned."""
    print(f"seed {SEED}")
    sampled = [case for case in cases_for(release, NUMBER, SEED) if not bed_of(case)]
    cases = [*cases_of(REMEMBERED[release]), *sampled]
    _only_senders_are_banned(run(request.getfixturevalue(f"open{release}"), cases, Terms(), tmp_path))


@pytest.mark.parametrize(
    ("bed", "release"),
    [
        ("container", "16"),
        pytest.param("container", "22", marks=pytest.mark.long),
        ("two", "16"),
        pytest.param("two", "22", marks=pytest.mark.long),
    ],
)
def test_hostile_text_elsewhere_bans_only_its_sender(tmp_path: Path, bed: str, release: str) -> None:
    """So it is with Asterisk in a container, and with two Asterisks on one host."""
    cases = [case for case in cases_for(release, NUMBER, SEED) if bed_of(case) == bed]
    with BEDS[bed](release) as (lab, settings):
        _only_senders_are_banned(run(lab, cases, Terms(), tmp_path, settings))


@pytest.mark.parametrize("release", [pytest.param("16", marks=pytest.mark.long), "22"])
def test_hostile_text_in_the_log_alone_bans_no_other(
    request: pytest.FixtureRequest, tmp_path: Path, release: str
) -> None:
    """If the log is the only source, text with line feeds still bans no address that it names."""
    usable = [
        case for case in cases_for(release, 0, SEED) if not case.setting and LINE_ENDS.fullmatch(case.name)
    ]
    cases = [*cases_of(IN_THE_LOG[release]), *random.Random(SEED).sample(usable, 4 * NUMBER)]  # noqa: S311
    lab = request.getfixturevalue(f"open{release}")
    found = run(lab, cases, evolve(QUICK, log_only=True), tmp_path)
    assert found.framed == {}
    assert found.silent == []


def _only_senders_are_banned(found: Findings) -> None:
    assert found.framed == {}
    assert found.uncounted == {}
    assert found.late == {}
    assert found.doubled == {}
    assert found.silent == []
