"""The fates of packets, with real packets: equal to the pinned ones in ``fates``, for both backends."""

import difflib

import pytest
from tests.support.fates import FOLDER, PLANS, laid, text_of

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("flavour", ["nft", pytest.param("legacy", marks=pytest.mark.long), "nftables"])
def test_each_packet_has_its_pinned_fate(flavour: str) -> None:
    """Each kind of packet, at each place, passes, is dropped, rationed or copied as pinned, in each plan."""
    differences: list[str] = []
    with laid(flavour) as (fates, backend):
        for name, wanted in PLANS.items():
            path = FOLDER / f"{name}.txt"
            pinned, now = path.read_text("utf-8"), text_of(fates.of(backend, wanted))
            lines = difflib.unified_diff(pinned.splitlines(), now.splitlines(), path.name, flavour, n=1)
            differences += list(lines)
    if differences:
        pytest.fail(
            "\n".join([*differences, "", "If these are the wanted fates: make rulesets"]), pytrace=False
        )
