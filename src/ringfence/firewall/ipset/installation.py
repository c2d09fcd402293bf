"""Makes the sets of ringfence, adopts existing ones, and replaces damaged ones."""

from collections.abc import Iterable, Mapping

from attrs import evolve, frozen

from ringfence.errors import FirewallError
from ringfence.firewall.ipset.kernel import read_header, replace
from ringfence.firewall.ipset.messages import IpsetHeader
from ringfence.firewall.ipset.sets import SetSpec, create_set, mismatch, set_specs, temporary_name
from ringfence.firewall.ipset.watch import WrittenList
from ringfence.netlink.connection import NetlinkConnection, NetlinkError


@frozen
class InstalledSets:
    """The result of :func:`make_sets`.

    ``adopted`` is the number of bans that existing sets had. ``damaged``: a set was missing or changed.
    ``lists`` has the network lists whose contents are unknown: ringfence has written nothing to the set yet,
    or its number of elements has changed since. It maps the name of the set to its present number of
    elements.
    """

    adopted: int
    damaged: bool
    lists: Mapping[str, WrittenList]


def make_sets(
    kernel: NetlinkConnection,
    versions: Iterable[int],
    maxelem: int,
    known: Mapping[str, WrittenList],
    *,
    first: bool,
) -> InstalledSets:
    """Make the missing sets of these IP versions.

    ``maxelem`` is the number of bans for which a new set has room. ``known`` has what was written to the sets
    of network lists, by the name of the set. ``first``: the firewall was not open before.

    If a set has one of our names, but another type or IP version, it belongs to another program, and
    FirewallError is raised. If it only lacks our options (timeouts, counters), it is replaced, or
    FirewallError is raised if ``first`` is true.
    """
    wanted = [spec for version in versions for spec in set_specs(version)]
    heads = {spec: read_header(kernel, spec.name) for spec in wanted}
    damaged = _replace_foreign(kernel, heads, maxelem, first=first)
    adopted, lists = 0, {}
    for spec, head in heads.items():
        if head is None:
            damaged = True
            try:
                kernel.request(create_set(spec, maxelem))
            except NetlinkError as error:
                raise FirewallError(f"set {spec.name} could not be made: {error}") from error
        elif spec.bans:
            adopted += head.elements
        if spec.network_list:
            elements = head.elements if head is not None else 0
            written = known.get(spec.name)
            if written is None or elements != written.elements:
                damaged |= written is not None
                lists[spec.name] = WrittenList(elements)
    return InstalledSets(adopted, damaged, lists)


def _replace_foreign(
    kernel: NetlinkConnection, heads: dict[SetSpec, IpsetHeader | None], maxelem: int, *, first: bool
) -> bool:
    """Replace sets that have our names but were made by another program; return whether there were any.

    ``heads`` has the header of each wanted set, None for a missing one; the headers of replaced sets are
    updated. ``maxelem`` and ``first`` are those of :func:`make_sets`, which also describes when FirewallError
    is raised.
    """
    foreign = []
    for spec, head in heads.items():
        if head is not None and (why := mismatch(head, spec)):
            if first or (head.type_name, head.version) != (spec.type_name, spec.version):
                raise FirewallError(why)
            foreign.append(spec)
    for spec in foreign:
        fresh = evolve(spec, name=temporary_name(spec.name))
        replace(kernel, spec.name, fresh.name, create_set(fresh, maxelem))
        heads[spec] = read_header(kernel, spec.name)
    return bool(foreign)
