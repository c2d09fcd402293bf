"""Parts behind the sources: they record what the sources report."""

from collections.abc import Mapping, Sequence

from attrs import define, field

from ringfence.detect.judgement import Judgement
from ringfence.sources.logs import Positions
from ringfence.sources.roster import AmiListener
from ringfence.sources.wire import WireHost, WireItem, WireSink
from ringfence.values.friend import Contact, Roster
from ringfence.values.network import Address


@define(eq=False)
class Phones(AmiListener):
    """The rosters, changes and reloads that AMI reported."""

    rosters: list[Roster] = field(factory=list)
    contacts: list[Contact] = field(factory=list)
    reloads: int = 0

    def on_roster(self, roster: Roster) -> None:
        """Record a roster."""
        self.rosters.append(roster)

    def on_contact(self, contact: Contact) -> None:
        """Record a change of a phone."""
        self.contacts.append(contact)

    def on_reload(self) -> None:
        """Count a reload of Asterisk's accounts and trunks."""
        self.reloads += 1


@define(eq=False)
class Packets(WireSink):
    """What the wire showed, and the times of its gaps."""

    seen: list[WireItem] = field(factory=list)
    gaps: list[float] = field(factory=list)

    def on_packets(self, seen: Sequence[WireItem], now: float) -> None:
        """Record items."""
        self.seen += seen

    def on_gap(self, now: float) -> None:
        """Record a gap."""
        self.gaps.append(now)


@define(eq=False)
class KnownHost(WireHost):
    """A host with these users; each user and each container is Asterisk's (True), or it is unknown (None)."""

    users: Mapping[int, bool | None] = field(factory=dict)
    container: bool | None = True

    def is_asterisks(self, user: int) -> bool | None:
        """Look up a user."""
        return self.users.get(user)

    def is_container(self, address: Address) -> bool | None:
        """Return the same for each container."""
        return self.container


class Judgements(list[Judgement]):
    """The judgements that it heard, in order."""

    def on_judgement(self, judgement: Judgement) -> None:
        """Keep a judgement."""
        self.append(judgement)


class Written(Positions):
    """All positions that were recorded, in order, as ``texts``."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def record(self, key: str, position: str) -> None:
        """Record a position."""
        super().record(key, position)
        self.texts.append(position)
