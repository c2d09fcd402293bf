"""The rules of both backends, compared as text with the pinned ones in the folders of ``rulesets``."""

import pytest
from tests.support.flavours import FLAVOURS, tools_of
from tests.support.netns import run
from tests.support.rulesets import FOLDERS, Texts

from ringfence.firewall.ipset.sets import create_set, set_specs
from ringfence.netlink.connection import NetlinkConnection


def compare(name: str, texts: Texts) -> None:
    """Fail with the difference if ``texts`` are not the pinned ones of the folder ``name``."""
    if difference := FOLDERS[name].difference(texts):
        pytest.fail(f"{difference}\nIf these are the wanted rules: make rulesets", pytrace=False)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_rules_of_nftables_are_the_pinned_ones(name: str) -> None:
    """The text for nft is the pinned one."""
    compare(name, FOLDERS[name].nftables_texts())


@pytest.mark.parametrize("name", FOLDERS)
def test_the_rules_and_sets_of_ipset_are_the_pinned_ones(name: str) -> None:
    """The texts for iptables-restore and ip6tables-restore are the pinned ones, and so are the sets."""
    compare(name, FOLDERS[name].ipset_texts())


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_nft_accepts_the_pinned_rules() -> None:
    """The program accepts the text of each folder after that of any other, and a second time."""
    for pinned in FOLDERS.values():
        for _ in range(2):
            run("nft", "-f", "-", text=str(pinned.nftables_texts()["nftables.txt"]))


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_iptables_accepts_the_pinned_rules(flavour: str) -> None:
    """Each flavour of iptables accepts the texts of each folder."""
    with NetlinkConnection() as kernel:
        for spec in [*set_specs(4), *set_specs(6)]:
            kernel.request(create_set(spec, 1024))
    for pinned in FOLDERS.values():
        texts = pinned.ipset_texts()
        for version, name in ((4, "iptables.txt"), (6, "ip6tables.txt")):
            run(tools_of(flavour, version).restore, "--noflush", text=texts[name] or "")


@pytest.mark.parametrize("name", FOLDERS)
def test_no_rule_of_nftables_accepts_a_packet_that_arrives(name: str) -> None:
    """The administrator's own rules see each packet that ours do not drop."""
    chains = [chain for chain in FOLDERS[name].nftables().chains if not chain.name.startswith("output")]
    assert [rule for chain in chains for rule in chain.rules if rule.endswith("accept")] == []
