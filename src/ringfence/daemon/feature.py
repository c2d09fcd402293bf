"""A feature's part in the running daemon: what the daemon collects from it, and what it tells it.

The module ``guard`` of a feature has a function ``build``. It gets the firewall's side, and returns a
:class:`Feature`.
"""

from collections.abc import Coroutine, Iterable, Mapping

from ringfence import street
from ringfence.control import Handler
from ringfence.daemon.firewall_side import FirewallSide
from ringfence.detect.judgement import Judgement


class Feature:
    """A part of the running daemon. By default it does nothing."""

    def handlers(self) -> Mapping[str, Handler]:
        """Return the handlers of its requests, by name."""
        return {}

    def jobs(self) -> list[Coroutine[None, None, None]]:
        """Return the coroutines that run until the daemon stops."""
        return []

    def on_judgement(self, judgement: Judgement) -> object:
        """Take note of a judgement; must not wait."""

    def finish(self) -> None:
        """Do the last work, when all jobs have ended."""


def build_features(side: FirewallSide) -> list[Feature]:
    """Build the features that this copy of ringfence has, in the order of the street."""
    return [module.build(side) for module in street.modules("guard")]


def handlers_of(features: Iterable[Feature]) -> dict[str, Handler]:
    """Return the handlers of all requests of the features."""
    return {do: handler for feature in features for do, handler in feature.handlers().items()}
