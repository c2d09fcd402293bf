"""Exemptions that follow this host, and the names that lists and friends need."""

import asyncio
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.kept import OTHER, PHONE, Kept, kept, settings

from ringfence.bans.unban import unban, unban_all
from ringfence.errors import FirewallError
from ringfence.firewall import network_lists
from ringfence.friends.registry import TRUNK_FOR
from ringfence.host.names import ResolvedNames
from ringfence.values.ban import Ban, Scope
from ringfence.values.event import Service, Transport
from ringfence.values.friend import FriendReason, Roster, TrunkHost


def test_own_addresses_are_followed(kept: Kept) -> None:
    """A new own address is unbanned and never banned; after the host loses it, it can be banned."""
    kept.side.start()
    kept.ban(OTHER)
    kept.own_addresses_are(OTHER)

    assert kept.banned() == set()
    assert kept.ban(OTHER) == ["192.0.2.1: is never banned: an address of this host; --force bans it anyway"]
    kept.own_addresses_are()
    assert kept.ban(OTHER) == []


def test_a_new_protected_address_is_exempt(kept: Kept) -> None:
    """A new protected address, such as a gateway, ends bans that touch it and is the reason of a refusal."""
    kept.side.start()
    kept.ban("192.0.2.0/24")
    kept.side.exempt.protected.set_part("gateways", {ip_network(OTHER): "a gateway"})
    kept.side.exempt.networks.on_protected()

    assert kept.banned() == set()
    assert "a gateway" in kept.ban(OTHER)[0]


def test_a_part_of_a_protected_network_can_be_banned_by_force(kept: Kept) -> None:
    """The rest of the network goes on to pass, and an unban lets the whole of it pass again."""
    kept.side.start()
    kept.side.exempt.protected.set_part("proxies", {ip_network("192.0.2.0/30"): "a proxy"})
    kept.side.exempt.networks.on_protected()
    assert kept.ban("192.0.2.1", force=True) == []

    passing = kept.backend.lists[network_lists.ALLOW]
    ends = [n for n in range(4) if any(ip_address(f"192.0.2.{n}") in one for one in passing)]
    assert ends == [0, 2, 3]
    asyncio.run(unban(kept.enforcer, [ip_network("192.0.2.1")]))
    assert ip_network("192.0.2.0/30") in kept.backend.lists[network_lists.ALLOW]


def test_an_address_exempted_while_off_is_not_banned(kept: Kept) -> None:
    """An address that became exempt while enforcement was off is not banned when it is switched on."""
    kept.side.start()
    kept.ban(OTHER, "192.0.2.2")
    kept.enforcer.switch_off()
    kept.own_addresses_are(OTHER)
    kept.side.kernel.manager.switch_on()

    assert kept.banned() == {"192.0.2.2/32"}


def allowed(kept: Kept) -> bool:
    """Whether the kernel's allow list has the gateway."""
    return ip_network(OTHER) in kept.backend.lists[network_lists.ALLOW]


@pytest.mark.parametrize("banned", [OTHER, "192.0.2.0/24"])
def test_a_gateway_is_on_the_allow_list_while_it_is_not_banned(kept: Kept, banned: str) -> None:
    """The kernel's allow list has what this host needs, except while a forced ban of it is in the kernel."""
    kept.side.start()
    kept.side.exempt.protected.set_part("gateways", {ip_network(OTHER): "a gateway"})
    kept.side.exempt.networks.on_protected()
    kept.backend.refuses[ip_network(banned)] = FirewallError("no memory")
    assert kept.ban(banned, force=True) == [f"{banned}: no memory"]
    assert allowed(kept)
    kept.backend.refuses.clear()
    kept.enforcer.tick()
    assert (kept.banned(), allowed(kept)) == ({str(ip_network(banned))}, False)

    narrow, end = ip_network(banned), kept.now + 60.0
    kept.add(Ban(narrow, since=kept.now, expires=end, rule="guess", scope=Scope.SIP_UDP))
    for seconds in (60.0, 3_600.0):
        assert not allowed(kept)
        kept.now += seconds
        kept.enforcer.tick()
    assert (kept.banned(), allowed(kept)) == (set(), True)
    kept.ban(banned, force=True)
    assert not allowed(kept)
    asyncio.run(unban(kept.enforcer, [ip_network(OTHER)]))
    assert allowed(kept)


def test_a_forced_ban_that_is_restored_takes_the_gateway_off_the_allow_list(kept: Kept) -> None:
    """If the kernel loses a forced ban and takes it back later, the allow list follows."""
    kept.side.start()
    kept.side.exempt.protected.set_part("gateways", {ip_network(OTHER): "a gateway"})
    kept.side.exempt.networks.on_protected()
    kept.ban(OTHER, force=True)
    kept.backend.lose()
    kept.backend.refuses[ip_network(OTHER)] = FirewallError("no memory")
    asyncio.run(kept.side.kernel.reconciler.compare())
    kept.side.exempt.networks.on_protected()
    assert allowed(kept)
    kept.backend.refuses.clear()
    kept.enforcer.tick()

    assert (kept.banned(), allowed(kept)) == ({f"{OTHER}/32"}, False)


def test_a_forced_ban_of_what_this_host_does_not_need_writes_no_list(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The allow list is written again only for bans by force that cover a network that this host needs."""
    kept.side.start()
    kept.side.exempt.protected.set_part("gateways", {ip_network(OTHER): "a gateway"})
    kept.side.exempt.networks.on_protected()
    written = list[object]()
    monkeypatch.setattr(kept.enforcer.filler, "fill", lambda *targets: written.extend(targets))
    kept.ban("203.0.113.1", force=True)
    kept.ban("203.0.113.2")
    asyncio.run(unban_all(kept.enforcer))
    assert written == []
    kept.ban(OTHER, force=True)

    assert written == [network_lists.ALLOW]


def test_names_of_trunks_and_lists_are_both_followed(kept: Kept) -> None:
    """The names of trunks and of lists are followed side by side, and each side receives its addresses."""
    kept.side.start()
    trunk = TrunkHost("pbx", Service.PJSIP, "carrier", "sip.example", None, Transport.UDP)
    kept.side.exempt.names.want(["office.example"], "lists")
    kept.side.exempt.friends.on_roster(Roster("pbx", (), (trunk,)))
    assert set(kept.side.exempt.names._names) == {"office.example", "sip.example"}

    found = ResolvedNames(frozenset({ip_network(OTHER)}))
    kept.side.exempt.names._take("sip.example", found, 0.0)
    kept.side.exempt.networks.on_resolved()
    [friend] = kept.side.exempt.friends.friends.reasons(PHONE.address)
    assert (friend.reason, friend.account) == (FriendReason.TRUNK, "carrier")
    kept.side.exempt.names.want([], "lists")
    assert set(kept.side.exempt.names._names) == {"sip.example"}


def test_where_trunks_names_led_is_known_while_no_dns_answers(tmp_path: Path) -> None:
    """While no DNS answers, a trunk's name has the addresses that the last daemon recorded for it."""
    with kept(tmp_path) as made:
        made.store.names.save({"sip.example": {ip_network(OTHER): 0.0}})
        again = Kept(made.store, settings())
        again.side.start()
        trunk = TrunkHost("pbx", Service.PJSIP, "carrier", "sip.example", None, Transport.UDP)
        again.side.exempt.friends.on_roster(Roster("pbx", (), (trunk,)))

        assert again.side.exempt.friends.friends.has(PHONE.address)


def test_the_addresses_of_names_that_nobody_wants_yet_are_saved_again(tmp_path: Path) -> None:
    """If AMI is down from the start, the names of trunks are not wanted. A later start may need them."""
    with kept(tmp_path) as made:
        made.store.names.save({"sip.example": {ip_network(OTHER): 0.0}})
        again = Kept(made.store, settings())
        again.side.start()
        again.side.exempt.names.want(["office.example"], "lists")
        again.side.exempt.networks.on_resolved()

        assert made.store.names.load().keys() == {"sip.example"}


def test_the_trunks_of_an_asterisk_end_with_its_configuration(kept: Kept) -> None:
    """A new configuration without an Asterisk, or without its AMI, ends the renewal of its trunks."""
    kept.side.start()
    trunk = TrunkHost("gone", Service.PJSIP, "carrier", OTHER, None, Transport.UDP)
    kept.side.exempt.friends.on_roster(Roster("gone", (), (trunk,)))
    assert kept.side.exempt.friends.friends.has(PHONE.address)
    kept.side.configure(settings())
    kept.now += TRUNK_FOR
    kept.side.exempt.friends.expire()

    assert not kept.side.exempt.friends.friends.has(PHONE.address)


def test_this_hosts_own_address_is_no_friend(kept: Kept) -> None:
    """A contact that names the PBX's own address makes no friend."""
    kept.side.start()
    kept.side.exempt.friends.add([evolve(PHONE, address=ip_address("198.18.0.1"))])

    assert len(kept.side.exempt.friends.friends) == 0
