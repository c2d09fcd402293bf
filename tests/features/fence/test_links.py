"""Links for one use that admit an address to the fence, without a daemon."""

import pytest
from tests.support.clock import SetClock

from ringfence.errors import ControlError
from ringfence.features.fence.links import MOST_LINKS, AdmitLinks
from ringfence.values.secret import Secret


class Links:
    """Links with a clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.links = AdmitLinks(SetClock(mono=lambda: self.now))

    def use(self, token: Secret) -> str:
        """Use a token; return the seconds of its link as text."""
        with self.links.using(token) as seconds:
            return str(seconds)


def test_a_link_works_once() -> None:
    """A token admits for the time of its link, once; it is masked, and another one is refused."""
    made = Links()
    token, other = made.links.make(60.0, 10.0), made.links.make(90.0, 10.0)

    assert token.reveal() not in f"{token!r} {token} {vars(made.links)}"
    assert made.use(token) == "60.0"
    for wrong in (token, Secret(""), Secret(other.reveal()[:-1]), Secret("\ud800é")):
        with pytest.raises(ControlError, match="is not valid"):
            made.use(wrong)
    assert made.use(other) == "90.0"


def test_a_link_expires() -> None:
    """A token is refused when its time is over."""
    made = Links()
    token = made.links.make(60.0, 10.0)
    made.now += 10.0
    with pytest.raises(ControlError, match="is not valid"):
        made.use(token)


def test_a_failure_uses_up_no_link() -> None:
    """If the address cannot be admitted, the link can be used again."""
    made = Links()
    token = made.links.make(60.0, 10.0)
    with pytest.raises(ControlError, match="too many"), made.links.using(token):
        raise ControlError("too many")
    assert made.use(token) == "60.0"


def test_the_number_of_links_is_limited() -> None:
    """A link too many is refused until another one is used or expires."""
    made = Links()
    tokens = [made.links.make(60.0, 10.0 + number) for number in range(MOST_LINKS)]
    with pytest.raises(ControlError, match="links are open"):
        made.links.make(60.0, 10.0)
    made.use(tokens[5])
    made.links.make(60.0, 99.0)
    made.now += 10.0
    assert made.use(made.links.make(60.0, 10.0)) == "60.0"
