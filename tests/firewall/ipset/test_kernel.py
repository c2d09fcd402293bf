"""Operations on single sets: headers, elements, replacement, removal."""

import struct
from ipaddress import ip_network

import pytest
from tests.support.netns import run

from ringfence.errors import FirewallError, FirewallUnsupportedError
from ringfence.firewall.contract import Element
from ringfence.firewall.ipset import sets as ipset_kernel
from ringfence.firewall.ipset.messages import MAX_ELEMENTS, Command, add_permanent, create
from ringfence.firewall.ipset.sets import (
    contains,
    destroy,
    list_elements,
    read_header,
    replace,
    require_ipset,
)
from ringfence.netlink.connection import NetlinkConnection
from ringfence.values.ban import Scope

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


def test_a_missing_set_is_empty() -> None:
    """A missing set has no header and no elements, and is removed without an error."""
    with NetlinkConnection() as kernel:
        require_ipset(kernel)
        assert read_header(kernel, "ringfence4") is None
        assert list(list_elements(kernel, "ringfence4")) == []
        destroy(kernel, "ringfence4")


class Older:
    """A simulated older kernel: an attribute in its answers has a lower number."""

    def __init__(self, kernel: NetlinkConnection, command: Command, attribute: int, number: int) -> None:
        self._kernel = kernel
        self._changed = command, struct.pack("=HH", 5, attribute), bytes([number])

    def request(self, *messages: bytes) -> list[bytes]:
        """Send a request to the real kernel, and lower the number in the answer to that command."""
        command, head, number = self._changed
        answers = self._kernel.request(*messages)
        if messages[0][4] != command & 0xFF:  # the command is the low byte of the type
            return answers
        return [self._lowered(answer, head, number) for answer in answers]

    @staticmethod
    def _lowered(answer: bytes, head: bytes, number: bytes) -> bytes:
        place = answer.index(head, 20) + len(head)
        return answer[:place] + number + answer[place + 1 :]


@pytest.mark.parametrize(
    ("command", "attribute", "number", "problem"),
    [
        (Command.PROTOCOL, 1, 6, "speaks protocol 6, and 7 is needed; fix: Linux 5.0"),
        (Command.TYPE, 4, 0, "hash:net is of revision 0, and 3 is needed"),
    ],
)
def test_an_older_ipset_is_refused(command: Command, attribute: int, number: int, problem: str) -> None:
    """An ipset whose protocol or set type is too old is refused with its number and the fix."""
    with NetlinkConnection() as kernel, pytest.raises(FirewallUnsupportedError, match=problem):
        require_ipset(Older(kernel, command, attribute, number))  # type: ignore[arg-type]


def test_header_and_elements_are_read() -> None:
    """The header has the numbers of elements and references, and each element has the scope of its set."""
    run("ipset", "create", "ringfence-udp4", "hash:net", "timeout", "0", "counters")
    run("ipset", "add", "ringfence-udp4", "192.0.2.0/24", "timeout", "0", "packets", "3", "bytes", "4")
    run("iptables", "-A", "INPUT", "-m", "set", "--match-set", "ringfence-udp4", "src")
    with NetlinkConnection() as kernel:
        head = read_header(kernel, "ringfence-udp4")
        elements = list(list_elements(kernel, "ringfence-udp4", Scope.SIP_UDP))

        held = [contains(kernel, name, ip_network("192.0.2.0/24")) for name in ("ringfence-udp4", "absent")]
        held.append(contains(kernel, "ringfence-udp4", ip_network("198.51.100.0/24")))

    assert held == [True, False, False]
    assert head is not None
    assert (head.elements, head.references) == (1, 1)
    assert elements == [Element(ip_network("192.0.2.0/24"), float("inf"), 3, 4, Scope.SIP_UDP)]


def test_a_very_long_set_is_listed_whole() -> None:
    """The time limit holds for each part of the list: a set whose list takes longer is listed whole."""
    networks = [ip_network((0x0A000000 + n, 32)) for n in range(100_000)]
    with NetlinkConnection() as kernel:
        kernel.request(create("ringfence4", 4, hashsize=65_536, maxelem=len(networks)))
        for at in range(0, len(networks), MAX_ELEMENTS):
            kernel.request(add_permanent("ringfence4", networks[at : at + MAX_ELEMENTS]))
    with NetlinkConnection(timeout=0.02) as kernel:
        found = {element.network for element in list_elements(kernel, "ringfence4")}
    assert found == {*networks}


def test_a_set_is_replaced_where_rules_name_it() -> None:
    """A rule then uses the replacement, and the old set is gone with its elements."""
    run("ipset", "create", "ringfence4", "hash:net")
    run("ipset", "add", "ringfence4", "192.0.2.0/24")
    run("iptables", "-A", "INPUT", "-m", "set", "--match-set", "ringfence4", "src")
    with NetlinkConnection() as kernel:
        made = create("ringfence4-new", 4, hashsize=64, maxelem=7)
        replace(kernel, "ringfence4", "ringfence4-new", made)
        head = read_header(kernel, "ringfence4")

    assert head is not None
    assert (head.elements, head.references) == (0, 1)
    assert run("ipset", "list", "-name") == "ringfence4\n"


def test_a_set_in_use_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set in use is an error with a command that finds the rule; without the rule it is removed."""
    monkeypatch.setattr(ipset_kernel, "_RELEASE", 0.05)
    run("ipset", "create", "ringfence4", "hash:net")
    run("iptables", "-A", "INPUT", "-m", "set", "--match-set", "ringfence4", "src")
    with NetlinkConnection() as kernel:
        with pytest.raises(FirewallError, match=r"iptables-save \| grep ringfence4"):
            destroy(kernel, "ringfence4")
        run("iptables", "-F", "INPUT")
        monkeypatch.undo()
        destroy(kernel, "ringfence4")
    assert run("ipset", "save") == ""
