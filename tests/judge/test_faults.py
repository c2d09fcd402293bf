"""The judge notices each fault that is put back, and nothing in the same worlds without it."""

import re
from dataclasses import replace
from string import ascii_lowercase

import pytest
from tests.judge.fault import Fault, noticed, put_back
from tests.judge.faults import FAULTS, NOTHING_TO_PUT_BACK
from tests.judge.guard import guarding
from tests.judge.worlds import play


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_that_is_put_back_is_noticed(fault: Fault) -> None:
    """The world of the fault violates its invariant with the fault, and none without it."""
    failure = noticed(fault)

    assert failure is not None
    assert fault.invariant in ("", failure.invariant)
    assert play(fault.acts, guarding, fault.site) is None


def test_each_finding_is_put_back_or_has_a_reason() -> None:
    """The findings a to v are complete: each is in ``FAULTS`` or in ``NOTHING_TO_PUT_BACK``."""
    names = [fault.name for fault in FAULTS] + list(NOTHING_TO_PUT_BACK)
    letters = [found[1] for name in names if (found := re.fullmatch(r"([a-v])(?:[1-9]|: .*)?", name))]

    assert sorted(set(letters)) == list(ascii_lowercase[:22])
    assert len(names) == len(set(names))


def test_a_fault_that_does_not_apply_any_more_is_an_error() -> None:
    """If the replaced function is gone, the fault is not passed over."""
    gone = replace(FAULTS[0], where=f"{FAULTS[0].where}_gone")

    with pytest.raises(AttributeError, match="put the fault back elsewhere"), put_back(gone):
        pass
