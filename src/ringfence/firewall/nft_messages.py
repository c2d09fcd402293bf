"""The nftables messages for cleaning up after iptables-nft: is there a table raw, and delete it if empty.

iptables-nft makes table raw when the first rule comes, and no iptables command deletes it. The deletion is
one batch of which nothing happens unless everything in it can: each chain only if no rule is in it, the table
only if nothing is left in it (NLM_F_NONREC, kernel 4.20). A chain's policy is not asked about here.
"""

from socket import AF_INET, AF_INET6

from ringfence.firewall.nfnetlink import NLM_F_ACK, NLM_F_NONREC, message, text

_SUBSYSTEM = 10
_FAMILIES = {4: AF_INET, 6: AF_INET6}
_GETTABLE, _DELTABLE, _DELCHAIN = 1, 2, 5
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_TABLE = text(1, "raw")  # NFTA_TABLE_NAME and NFTA_CHAIN_TABLE


def table_query(version: int) -> bytes:
    """Build the question whether nftables has a table raw for IP ``version``; ENOENT if not."""
    return message(_SUBSYSTEM << 8 | _GETTABLE, NLM_F_ACK, _FAMILIES[version], _TABLE)


def delete_empty_table(version: int) -> tuple[bytes, ...]:
    """Build the batch that deletes table raw with its two chains; EBUSY if anything else is in it."""
    family = _FAMILIES[version]
    chains = (text(3, name) for name in ("PREROUTING", "OUTPUT"))
    return (
        message(_BATCH_BEGIN, 0, 0, resource=_SUBSYSTEM),
        *(message(_SUBSYSTEM << 8 | _DELCHAIN, NLM_F_NONREC, family, _TABLE, chain) for chain in chains),
        message(_SUBSYSTEM << 8 | _DELTABLE, NLM_F_NONREC | NLM_F_ACK, family, _TABLE),
        message(_BATCH_END, 0, 0, resource=_SUBSYSTEM),
    )
