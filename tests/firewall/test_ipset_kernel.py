"""Sets one by one: heads, elements, removal."""

from ipaddress import ip_network

import pytest
from tests.support.netns import run

from ringfence.errors import FirewallError
from ringfence.firewall import ipset_kernel
from ringfence.firewall.contract import Element
from ringfence.firewall.ipset_kernel import contains, destroy, head_of, listed, replace, require_ipset
from ringfence.firewall.ipset_messages import create
from ringfence.firewall.netlink import Conversation
from ringfence.model import Scope

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


def test_what_is_not_there_is_nothing() -> None:
    """A set that is not there has no head and no elements, and is removed without an error."""
    with Conversation() as kernel:
        require_ipset(kernel)
        assert head_of(kernel, "ringfence4") is None
        assert list(listed(kernel, "ringfence4")) == []
        destroy(kernel, "ringfence4")


def test_a_sets_head_and_elements_are_read() -> None:
    """The head counts elements and references, and each element bears the scope that its set stands for."""
    run("ipset", "create", "ringfence-udp4", "hash:net", "timeout", "0", "counters")
    run("ipset", "add", "ringfence-udp4", "192.0.2.0/24", "timeout", "0", "packets", "3", "bytes", "4")
    run("iptables", "-A", "INPUT", "-m", "set", "--match-set", "ringfence-udp4", "src")
    with Conversation() as kernel:
        head = head_of(kernel, "ringfence-udp4")
        elements = list(listed(kernel, "ringfence-udp4", Scope.SIP_UDP))

        held = [contains(kernel, name, ip_network("192.0.2.0/24")) for name in ("ringfence-udp4", "absent")]
        held.append(contains(kernel, "ringfence-udp4", ip_network("198.51.100.0/24")))

    assert held == [True, False, False]
    assert head is not None
    assert (head.elements, head.references) == (1, 1)
    assert elements == [Element(ip_network("192.0.2.0/24"), float("inf"), 3, 4, Scope.SIP_UDP)]


def test_a_set_is_replaced_where_rules_name_it() -> None:
    """A rule goes on naming the set that took the place, and the one before is gone with what it held."""
    run("ipset", "create", "ringfence4", "hash:net")
    run("ipset", "add", "ringfence4", "192.0.2.0/24")
    run("iptables", "-A", "INPUT", "-m", "set", "--match-set", "ringfence4", "src")
    with Conversation() as kernel:
        made = create("ringfence4-new", 4, hashsize=64, maxelem=7)
        replace(kernel, "ringfence4", "ringfence4-new", made)
        head = head_of(kernel, "ringfence4")

    assert head is not None
    assert (head.elements, head.references, head.maxelem) == (0, 1, 7)
    assert run("ipset", "list", "-name") == "ringfence4\n"


def test_a_set_in_use_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set that a rule names is an error that says how to find the rule, and is gone when the rule is."""
    monkeypatch.setattr(ipset_kernel, "_RELEASE", 0.05)
    run("ipset", "create", "ringfence4", "hash:net")
    run("iptables", "-A", "INPUT", "-m", "set", "--match-set", "ringfence4", "src")
    with Conversation() as kernel:
        with pytest.raises(FirewallError, match=r"iptables-save \| grep ringfence4"):
            destroy(kernel, "ringfence4")
        run("iptables", "-F", "INPUT")
        monkeypatch.undo()
        destroy(kernel, "ringfence4")
    assert run("ipset", "save") == ""
