"""Complete lists of the bans in nftables sets, also while other programs change the sets.

The kernel lists a hash set in parts, 150 of them for 50 000 elements. At each part it finds its position
again by the number of elements before it. If the set changes between two parts, the list may lack elements
that never changed: 20 to 43 of 50 000 at 100 transactions a second. The kernel marks such a list
(NLM_F_DUMP_INTR). It does not mark the list if the change came during the last part, so the generation (the
number of the last transaction) is compared too. Nor does it mark a list during which elements expired.

Therefore a list is repeated if anything changed meanwhile, in any table, and the results are combined. Each
repetition takes 0.5 s of CPU for 50 000 bans, and a program that often changes its own table would interrupt
every one.

Lookups avoid repetitions: if the caller names the known bans, those that the list lacks are looked up one by
one. Since 6.16 the kernel reports a set's number of elements. So the number of missing ones is known: if it
is at most ``_FEW``, the list is not repeated.
"""

import errno
from collections.abc import Iterable, Iterator

from ringfence.errors import FirewallIncompleteError
from ringfence.firewall.contract import Element
from ringfence.firewall.nftables import elements
from ringfence.firewall.nftables.ruleset import TABLE, BanSet
from ringfence.firewall.nftables.state import read_generation, read_sets
from ringfence.model import Network, Scope
from ringfence.netlink.connection import NetlinkConnection, NetlinkError, NetlinkInterruptedError

_TRIES = 3
_FEW = 1_000
"""The most missing bans of a set that are looked up, at 20 µs each. If more are missing, list it again."""


def bans(kernel: NetlinkConnection, known: Iterable[tuple[Network, Scope]] | None) -> Iterator[Element]:
    """Yield every ban.

    ``known`` are bans that the caller expects. They are looked up one by one at the end, because the kernel's
    list may lack some. Raise FirewallIncompleteError if a set changed meanwhile: other bans may be missing.
    """
    unsure: list[str] = []
    for head in read_sets(kernel):
        ban = BanSet.parse(head.name)
        if ban is None or head.elements == 0:
            continue
        enough = head.elements - _FEW if known is not None and head.elements is not None else None
        whole, listed = _list_set(kernel, ban, enough)
        if not whole:
            unsure.append(head.name)
        yield from listed
    for network, scope in known or ():
        missed = find(kernel, network, scope)
        if missed is not None:
            yield missed
    if unsure:
        raise FirewallIncompleteError(
            f"{', '.join(unsure)} of table inet {TABLE} changed while they were listed; a ban that "
            "another program added may be missing; fix: list again"
        )


def find(kernel: NetlinkConnection, network: Network, scope: Scope) -> Element | None:
    """Return one ban from the kernel, None if it is not there."""
    ban = BanSet(scope, network.version, network.prefixlen)
    try:
        answers = kernel.request(elements.query(TABLE, ban.name, network))
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return None
        raise
    found = (one for answer in answers for one in elements.bans_of(answer, ban.version, ban.length, scope))
    return next(found, None)


def read_part(kernel: NetlinkConnection, name: str) -> list[bytes]:
    """Return the kernel's answers that list the elements of the set ``name``.

    If the set changes meanwhile, some elements may be missing. The callers accept that, because they read the
    set again soon.
    """
    try:
        return list(kernel.stream(elements.dump(TABLE, name)))
    except NetlinkInterruptedError as error:
        return error.answers


def _list_set(kernel: NetlinkConnection, ban: BanSet, enough: int | None) -> tuple[bool, Iterable[Element]]:
    """Read one set; return whether nothing changed meanwhile, and the elements.

    If something changed, the set is read again, up to three times in all, and the results are combined. If
    ``enough`` is a number and as many elements were found, it is not read again.
    """
    found: dict[Network, Element] = {}
    for _ in range(_TRIES):
        answers: list[bytes] = []
        generation = read_generation(kernel)
        try:
            answers.extend(kernel.stream(elements.dump(TABLE, ban.name)))
            whole = read_generation(kernel) == generation
        except NetlinkInterruptedError as error:
            whole, answers = False, error.answers
        except NetlinkError as error:
            if error.code == errno.ENOENT:
                return True, ()
            raise
        every = (
            one for answer in answers for one in elements.bans_of(answer, ban.version, ban.length, ban.scope)
        )
        if whole:
            return True, every
        found.update((element.network, element) for element in every)
        if enough is not None and len(found) >= enough:
            break
    return False, found.values()
