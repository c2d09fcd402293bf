"""Changes of bans in the sets of ipset, with an outcome for each.

If the kernel refuses an element, it reports which one, and the rest is sent again. A change without an
acknowledgement is an error, although it may have been carried out. The caller repeats it. A repeated
change does no harm.
"""

import errno
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ringfence.errors import FirewallError, FirewallUnsupportedError, SetFullError
from ringfence.firewall.contract import (
    EVERY_ADDRESS,
    SET_FULL,
    UNKNOWN_OUTCOME,
    Add,
    Change,
    Outcome,
    Remove,
)
from ringfence.firewall.ipset import messages
from ringfence.firewall.ipset.messages import Code
from ringfence.firewall.ipset.sets import SampleBans, ban_set_name
from ringfence.netlink.connection import NetlinkConnection, NetlinkError
from ringfence.values.ban import Scope
from ringfence.values.network import exempts_friends

# Refusals after which the rest is sent one by one: a full set refuses every new element, and to send the
# whole rest again after each refusal would take quadratic time.
_PATIENCE = 3


class SetChanges:
    """Adds bans to the sets of ipset, and removes them, over the netlink connection ``kernel``.

    ``samples`` remembers one ban of each set. The health check looks it up.
    """

    def __init__(self, kernel: NetlinkConnection) -> None:
        self.samples = SampleBans()
        self._kernel = kernel

    def apply(self, batch: Sequence[Change], families: Mapping[int, str | None]) -> list[Outcome]:
        """Carry out each Add and Remove in ``batch``; return the outcomes. In a set, the order is kept.

        ``families`` has for each IP version the reason why it has no sets; None if it has sets.
        """
        outcomes = [UNKNOWN_OUTCOME] * len(batch)
        lost: FirewallError | None = None
        for (version, scope, friends_exempt), indexes in _by_set(batch).items():
            reason = families[version]
            name = ban_set_name(version, scope, friends_exempt=friends_exempt)
            for part in _runs(batch, indexes):
                changes = [batch[index] for index in part]
                if reason is None and lost is None and friends_exempt and isinstance(changes[0], Remove):
                    # Another program may have added such a ban to the set for bans without exemption of
                    # friends. So a Remove is carried out in both sets.
                    _, lost = self._send(ban_set_name(version, scope), changes)
                if reason is not None:
                    done = _failed(changes, FirewallUnsupportedError(reason))
                elif lost is not None:  # the connection failed: a further request would only time out again
                    done = _failed(changes, lost)
                else:
                    done, lost = self._send(name, changes)
                for index, outcome in zip(part, done, strict=True):
                    outcomes[index] = outcome
        return outcomes

    def _send(self, name: str, changes: Sequence[Change]) -> tuple[list[Outcome], FirewallError | None]:
        """Send changes, all Add or all Remove, to the set ``name``.

        If the kernel refuses one, it has carried out those before it, and those after it are sent again.
        After more than _PATIENCE refusals they are sent one by one. Return an outcome for each change, and
        the error if the connection broke, else None.
        """
        seconds = [one.timeout if isinstance(one, Add) else 0 for one in changes]
        outcomes: list[Outcome] = []
        refused = 0
        while rest := changes[len(outcomes) :]:
            times = seconds[len(outcomes) :]
            size = 1 if refused > _PATIENCE else len(rest)
            try:
                self._kernel.request(_message(name, rest[:size], times))
            except NetlinkError as error:
                index = messages.refused_index(error.request)
                if index is None or index >= size:
                    return outcomes + _failed(rest, _explain(name, error)), None
                self.samples.record(name, rest[:index])
                outcomes += _done(rest[:index], times)
                outcomes += _failed(rest[index : index + 1], _explain(name, error))
                refused += 1
            except FirewallError as error:
                self.samples.discard(name)  # perhaps the kernel has removed it
                return outcomes + _failed(rest, error), error
            else:
                self.samples.record(name, rest[:size])
                outcomes += _done(rest[:size], times)
        return outcomes, None


def _by_set(batch: Sequence[Change]) -> Mapping[tuple[int, Scope, bool], list[int]]:
    """Group the changes of a batch by set: for each set, the positions of its changes in the batch.

    A set is given by its IP version, its scope, and whether friends are exempt.
    """
    indexes: defaultdict[tuple[int, Scope, bool], list[int]] = defaultdict(list)
    for index, change in enumerate(batch):
        network = change.network
        indexes[network.version, change.scope, exempts_friends(network)].append(index)
    return indexes


def _runs(batch: Sequence[Change], indexes: Sequence[int]) -> list[Sequence[int]]:
    """Divide positions in a batch into runs.

    The changes of a run are all Adds or all Removes, and fit into one message.
    """
    parts: list[Sequence[int]] = []
    for _verb, group in itertools.groupby(indexes, key=lambda index: type(batch[index])):
        run = tuple(group)
        parts += [run[at : at + messages.MAX_ELEMENTS] for at in range(0, len(run), messages.MAX_ELEMENTS)]
    return parts


def _message(name: str, changes: Sequence[Change], seconds: Sequence[int]) -> bytes:
    """Build the netlink request for ``changes``, all Add or all Remove, of the set ``name``.

    ``seconds`` has the timeout of each change, in the same order. It may be longer than ``changes``; the rest
    is ignored.
    """
    networks = [change.network for change in changes]
    if isinstance(changes[0], Add):
        return messages.add(name, list(zip(networks, seconds, strict=False)))
    return messages.delete(name, networks)


def _done(changes: Sequence[Change], seconds: Sequence[int]) -> list[Outcome]:
    return [Outcome(change, float(time)) for change, time in zip(changes, seconds, strict=False)]


def _failed(changes: Sequence[Change], error: FirewallError) -> list[Outcome]:
    return [Outcome(change, error=error) for change in changes]


def _explain(name: str, error: NetlinkError) -> FirewallError:
    if error.code == Code.HASH_FULL:
        return SetFullError(f"set {name} {SET_FULL}")
    if error.code == Code.INVALID_CIDR:
        return EVERY_ADDRESS
    if error.code == errno.ENOENT:
        return FirewallError(
            f"set {name} is gone: another program destroyed it; opening the firewall again creates it"
        )
    return error
