"""Logins: AMI's reports of right passwords, which excuse requests of which the wire saw no answer.

The wire may not see the answer to a right password: the connection of the phone has ended, or the phone has
just become a friend, and the kernel does not copy what a friend is sent. Then AMI's report shows that the
request was no guess. But an attacker with one password can guess others with the Call-ID of its own logins:

    REGISTER of the own account        ->
    20 guesses, maddr=255.255.255.255  ->
                                       <-  200 to the first one; AMI reports one login with this Call-ID

So each login excuses one request. A login whose answer was copied excuses none, whichever of both is known
first. And of several requests that wait for an answer, each may be the login: one of them is excused only if
there are logins for all.

Bounds: ``MOST`` Call-IDs, of each the latest ``MOST_REQUESTS`` logins. The oldest are forgotten first. So too
many attempts may be counted, and never too few.
"""

from collections import OrderedDict

from ringfence.detect.conversation import LIFE, MOST, MOST_REQUESTS
from ringfence.detect.sessions import remember
from ringfence.values.network import Address

LoginKey = tuple[Address, int, bytes | str]
"""Where a login came from, and its name: an address, its port (0: any), a Call-ID (chan_sip: an account)."""


class Logins:
    """The latest logins that AMI has reported, and those that only the wire has seen. Times are monotonic."""

    def __init__(self) -> None:
        self._reported: OrderedDict[LoginKey, tuple[float, ...]] = OrderedDict()  # when, the oldest first
        self._accepted: OrderedDict[LoginKey, tuple[int, float]] = OrderedDict()  # how many, the latest when

    def report(self, login: LoginKey, now: float) -> None:
        """Record that AMI reports a login at ``now``."""
        number, at = self._accepted.pop(login, (0, now))
        if number > 1:
            remember(self._accepted, login, (number - 1, at), MOST)
        if not number:
            times = *self._reported.get(login, ()), now
            remember(self._reported, login, times[-MOST_REQUESTS:], MOST)

    def accept(self, login: LoginKey, since: float, now: float) -> None:
        """Record that Asterisk has accepted a request, which came at ``since``, by a copied answer."""
        if not self.take(login, since):
            number, _ = self._accepted.get(login, (0, now))
            remember(self._accepted, login, (number + 1, now), MOST)

    def take(self, login: LoginKey, since: float, others: int = 0) -> bool:
        """Whether AMI has reported a login of a request that came at ``since``; it is used up then.

        ``others``: the number of other requests that each may be the login too.
        """
        times = self._reported.get(login, ())
        first = next((number for number, at in enumerate(times) if at >= since), len(times))
        if len(times) - first <= others:
            return False
        self._reported[login] = times[:first] + times[first + 1 :]
        if not self._reported[login]:
            del self._reported[login]
        return True

    def expire(self, now: float) -> None:
        """Forget what is older than ``LIFE``."""
        while self._reported and now - next(iter(self._reported.values()))[-1] >= LIFE:
            self._reported.popitem(last=False)
        while self._accepted and now - next(iter(self._accepted.values()))[1] >= LIFE:
            self._accepted.popitem(last=False)
