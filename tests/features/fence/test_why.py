"""The fence, as ``why`` shows it."""

from ipaddress import ip_network

from attrs import evolve
from tests.explain.world import friend, known

from ringfence.explain.as_json import document
from ringfence.explain.facts import Admission
from ringfence.explain.headlines import address_headline
from ringfence.features.fence.why import lines
from ringfence.firewall.limits import LimitMode
from ringfence.values.location import UNKNOWN


def test_an_address_outside_the_fence() -> None:
    """The fence and the country are named, without a forecast of bans; the country may be unknown."""
    outside = Admission(LimitMode.ENFORCE, inside=False, packets=3)
    told = document(known(admission=outside, location={**UNKNOWN, "country": "XX"}))
    assert told["fence"] == {"mode": "enforce", "inside": False, "outside": True, "packets": 3}
    assert (told["ration"], told["asking"]) == (None, None)
    [sentence] = told["forecast"]
    assert "outside the fence (XX), so its packets to the SIP ports are dropped" in sentence
    assert "ringfence fence admit 192.0.2.1" in sentence
    assert address_headline(told) == "192.0.2.1 is not banned, but the fence keeps it from the SIP ports"

    watched = document(known(admission=evolve(outside, mode=LimitMode.OBSERVE)))
    assert "(its country is unknown), so its packets to the SIP ports would be" in watched["forecast"][0]
    assert len(watched["forecast"]) > 1
    for other in (
        {"admission": evolve(outside, inside=True)},
        {"admission": outside, "network": ip_network("192.0.2.0/24"), "story": None},
        {"admission": outside, "friends": (friend(),)},
    ):
        told = document(known(**other))
        assert not any("outside the fence" in sentence for sentence in told["forecast"])
        assert "fence" not in address_headline(told)


def test_the_line_about_the_fence() -> None:
    """One line states whether the fence admits the address, and has the packets from outside."""
    outside = Admission(LimitMode.ENFORCE, inside=False, packets=12)
    packets = "the kernel drops what comes from outside; 12 packets counted within the last hour"
    network = ip_network("192.0.2.0/24")
    shown = {
        "lets it in": known(admission=evolve(outside, inside=True)),
        f"it is outside: {packets}": known(admission=outside),
        f"it does not admit all of it: {packets}": known(admission=outside, network=network, story=None),
    }
    assert {text: [*lines(document(one))] for text, one in shown.items()} == {
        text: [("fence", text)] for text in shown
    }
    assert [*lines(document(known()))] == []
