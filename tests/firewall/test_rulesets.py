"""The rules of both backends, compared as text with the pinned ones in the folders of ``rulesets``."""

import pytest
from tests.support.rulesets import FOLDERS, Texts


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
