"""The judge notices each fault that is put back, and nothing in the same worlds without it."""

from dataclasses import replace

import pytest
from tests.judge.faults import FAULTS, Fault, noticed, put_back
from tests.judge.guard import guarding
from tests.judge.worlds import play


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_that_is_put_back_is_noticed(fault: Fault) -> None:
    """The world of the fault violates an invariant with the fault, and none without it."""
    assert noticed(fault) is not None
    assert play(fault.acts, guarding) is None


def test_a_fault_that_does_not_apply_any_more_is_an_error() -> None:
    """If the replaced function is gone, the fault is not passed over."""
    gone = replace(FAULTS[0], where=f"{FAULTS[0].where}_gone")

    with pytest.raises(AttributeError, match="put the fault back elsewhere"), put_back(gone):
        pass
