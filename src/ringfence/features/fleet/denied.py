"""The decisions of other hosts that apply here, as networks that the lists deny."""

from collections.abc import Iterator

from ringfence.config.schema import Settings
from ringfence.features.fleet.decisions import packed_of
from ringfence.features.fleet.network_list import LIST
from ringfence.lists.manager import Holder, Lists, OtherNetworks
from ringfence.lists.prefixes import Prefixes, code_of, text_of
from ringfence.values.entry import ListEntry, ListKind
from ringfence.values.network import Network, contains, unpack

Decisions = tuple[tuple[bytes, str], ...]
"""Networks that other hosts have banned, packed, each with the scenario (reason of the ban)."""


class DecidedNetworks(OtherNetworks):
    """The networks that other hosts ban now (decisions of CrowdSec), which the lists of this host deny."""

    which = LIST

    def __init__(self, _: Settings) -> None:
        self._decisions: Decisions = ()
        self._networks = Prefixes()

    async def apply(self, lists: Lists, decisions: Decisions) -> None:
        """Deny the networks of ``decisions``, and no longer those of the last call."""
        packed = (packed_of(one) for one, _ in decisions)
        networks = await lists.in_thread(Prefixes.of_packed, packed)
        self._decisions, self._networks = decisions, networks
        await lists.renew(self)

    def compose(self, now: float) -> tuple[Prefixes]:  # noqa: ARG002 - these hold until they are replaced
        """Return the networks that other hosts ban, at any time ``now``."""
        return (self._networks,)

    def holding(self, network: Network, now: float) -> Iterator[Holder]:
        """Yield an entry of the deny list for each decision that contains ``network``."""
        for packed, scenario in self._decisions:
            denied = unpack(packed_of(packed))
            if contains(denied, network):
                text = text_of(*code_of(denied))
                entry = ListEntry(ListKind.DENY, text, "", now, None, f"decision {scenario}")
                what = f"{'--range' if '/' in text else '--ip'} {text}"
                removal = f"cscli decisions delete {what}, where CrowdSec's local API runs"
                yield Holder(entry, denied, removal, LIST.drops)


build = DecidedNetworks
"""The class that the lists use to get the feature's networks: those that other hosts ban."""
