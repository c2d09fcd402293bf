"""The habits of honest strangers, on an Asterisk that has no guard: everything succeeds, or is counted."""

from collections.abc import Iterator

import pytest
from tests.support import honest, victims
from tests.support.honest import Done, Habit, Scene
from tests.support.lab import Lab

pytestmark = pytest.mark.asterisk


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Yield an Asterisk without a guard, with the accounts of all habits."""
    with Lab.made("22", honest.configured()) as lab:
        yield lab


@pytest.mark.parametrize(
    ("number", "habit", "needed"),
    [
        (1, honest.monitor("UDP"), 5),
        (2, honest.failover("TCP"), 3),
        (3, honest.migration, 48),
        (4, honest.broken_phone, 10),
        (5, honest.new_phones("UDP"), 50),
        (6, honest.new_phones("TLS"), 50),
        (7, honest.new_phones("WS"), 50),
        (8, honest.guest_calls("UDP"), 10),
    ],
)
def test_without_a_guard_nothing_fails(lab: Lab, number: int, habit: Habit, needed: int) -> None:
    """All requests of a habit succeed without a guard."""
    assert habit(Scene(lab, number)) == Done(needed, failed=0)


@pytest.mark.parametrize(
    ("number", "habit", "needed"), [(11, honest.failover("UDP"), 3), (12, honest.new_phones("UDP"), 50)]
)
def test_a_drop_of_all_packets_is_counted(lab: Lab, number: int, habit: Habit, needed: int) -> None:
    """If the kernel drops the packets of a network, all its requests fail."""
    scene = Scene(lab, number)
    lab.run("iptables", "-I", "INPUT", "-s", f"{scene.at(0)}/24", "-j", "DROP")
    assert habit(scene) == Done(needed, failed=needed)


@pytest.mark.parametrize(("number", "name"), [*enumerate(victims.ATTACKS, 21)])
def test_without_a_guard_the_victims_go_on(lab: Lab, number: int, name: str) -> None:
    """The attacks use ringfence against their victims: without it nothing fails."""
    assert victims.ATTACKS[name](Scene(lab, number), None).failed == 0
