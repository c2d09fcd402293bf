"""The interface between a feature and the daemon: what a feature adds, and what it is informed of.

The module ``guard`` of a feature has a function ``build``. It gets the daemon's parts, and returns a
:class:`Feature`, or None if the configuration does not ask for it.
"""

from collections.abc import Coroutine, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

import structlog
from attrs import frozen

from ringfence import ban_facts, street
from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.alarms import AlarmEvent, Alarms
from ringfence.config.schema import Settings
from ringfence.control_server import Handler
from ringfence.detect.judgement import Judgement, Login
from ringfence.firewall.contract import Counters
from ringfence.guard.firewall_side import FirewallSide
from ringfence.guard.http_page import Page
from ringfence.guard.pipeline import EffectHandler, Pipeline
from ringfence.guard.reload import Reloader
from ringfence.guard.source_manager import SourceManager, WireReader
from ringfence.host.connections import ConnectionTable
from ringfence.threads import Threads


class Number(NamedTuple):
    """A number that a feature adds to the status and the metrics; ``text`` describes it.

    ``value`` is None if the number is unknown; the status then has 0. With ``only_grows`` the metric of the
    number is a counter, otherwise a gauge.
    """

    name: str
    text: str
    value: float | None
    only_grows: bool = False


def packets_of(side: FirewallSide, texts: Mapping[str, str]) -> list[Number]:
    """Return the kernel's packet counters whose names are the keys of ``texts``, with these descriptions."""
    latest = side.kernel.counters.latest
    return [
        Number(name, text, None if latest is None else latest.of(name), only_grows=True)
        for name, text in texts.items()
    ]


@frozen
class Section:
    """A feature's output: ``numbers`` for status and metrics, and ``more`` values of the status by key."""

    numbers: Sequence[Number] = ()
    more: Mapping[str, Any] = {}

    def as_json(self) -> dict[str, object]:
        """Return the feature's values for the status, by key; 0 for an unknown number."""
        return {**{one.name: one.value or 0 for one in self.numbers}, **self.more}


@frozen
class Changed:
    """The fact that a request changed something: who sent it (user and process), its name, and its result."""

    do: str
    request: Mapping[str, Any]
    result: Any
    who: str


Fact = ban_facts.Fact | AlarmEvent | Changed | Settings | Counters
"""The facts that a feature gets: about bans, alarms and requests, a new configuration, and counters."""


class Feature:
    """A part of the running daemon. By default it does nothing."""

    def handlers(self) -> Mapping[str, Handler]:
        """Return the handlers of the feature's requests on the control socket, by the request's name."""
        return {}

    def begin(self) -> object:
        """Do the feature's work before the firewall is put in place, when the daemon starts."""

    def end(self) -> object:
        """Clean up after the daemon has stopped, even because of a defect."""

    def jobs(self) -> Sequence[Coroutine[None, None, None]]:
        """Return the coroutines that run until the daemon stops. An exception of one ends the daemon."""
        return ()

    def threads(self) -> Sequence[Threads]:
        """Return the feature's threads. The daemon starts them before it changes anything."""
        return ()

    def pages(self) -> Mapping[bytes, Page]:
        """Return the pages that the feature serves by HTTP, by their paths, such as ``b"/metrics"``."""
        return {}

    def section(self) -> Section:
        """Return the numbers of the feature for the status and the metrics, and its values for the status."""
        return Section()

    def alarms(self) -> Sequence[Alarm]:
        """Return the alarms that the feature wants to be active now."""
        return ()

    def on_fact(self, fact: Fact) -> object:
        """Handle a fact. The event loop calls this for each one, so it must not wait."""

    def on_judgement(self, judgement: Judgement) -> object:
        """Handle a judged attempt. The event loop calls this for each one, so it must not wait."""

    def on_login(self, login: Login) -> object:
        """Handle a login of a phone. The event loop calls this for each one, so it must not wait."""

    async def stop(self) -> None:
        """Finish what may take seconds, before the daemon stops. All other parts keep running."""

    def finish(self) -> None:
        """Queue the last writes to the database, when all jobs have ended."""


@frozen
class Given:
    """The parts of the daemon that a feature may use.

    ``effects`` carries out what follows from a judgement. ``wire`` reads the challenges that leave; None if
    they are not read. ``connections`` are the TCP connections of this host. ``others`` has the features:
    while a feature is built, those before it in the street; later, all. ``answers`` has the handlers of
    requests, by name; those of features are added when all features are built. ``options`` are those of the
    command line that features read.
    """

    side: FirewallSide
    effects: EffectHandler
    pipeline: Pipeline
    sources: SourceManager
    wire: WireReader | None
    connections: ConnectionTable
    reloader: Reloader
    others: Sequence[Feature]
    answers: Mapping[str, Handler]
    options: Mapping[str, str]


class Features:
    """The features of the running daemon, in the order of ``street.py``; empty before :meth:`build`.

    A defect of one feature must not stop bans, nor keep facts from other features. So an exception that a
    feature raises for a fact, a judgement or a login is logged, and activates an alarm until the daemon's
    next start.
    """

    def __init__(self, alarms: Alarms) -> None:
        self.all: list[Feature] = []
        self._alarms = alarms
        self._failed: set[str] = set()
        # Only features that use judgements or logins are called with them: there are too many to call all.
        self._for_judgements: list[Feature] = []
        self._for_logins: list[Feature] = []

    def build(self, given: Given) -> None:
        """Build each feature of this installation; ``given.others`` is :attr:`all`.

        Each feature gets facts from now on.
        """
        for module in street.modules("guard"):
            feature = module.build(given)
            if feature is not None:
                self.all.append(feature)
                if type(feature).on_judgement is not Feature.on_judgement:
                    self._for_judgements.append(feature)
                if type(feature).on_login is not Feature.on_login:
                    self._for_logins.append(feature)
        given.side.common.listeners.append(self)

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of the requests of all features, by the request's name."""
        return {do: handler for feature in self.all for do, handler in feature.handlers().items()}

    def on_judgement(self, judgement: Judgement) -> None:
        """Pass a judged attempt on to each feature that handles judgements."""
        for feature in self._for_judgements:
            try:
                feature.on_judgement(judgement)
            except Exception as error:  # noqa: BLE001 - it becomes an alarm
                self._on_defect(feature, error)

    def on_login(self, login: Login) -> None:
        """Pass a login of a phone on to each feature that handles logins."""
        for feature in self._for_logins:
            try:
                feature.on_login(login)
            except Exception as error:  # noqa: BLE001 - it becomes an alarm
                self._on_defect(feature, error)

    def on_fact(self, fact: Fact) -> None:
        """Pass a fact (such as a ban, an alarm, a new configuration) on to each feature."""
        for feature in self.all:
            try:
                feature.on_fact(fact)
            except Exception as error:  # noqa: BLE001 - it becomes an alarm
                self._on_defect(feature, error)

    def _on_defect(self, feature: Feature, error: Exception) -> None:
        name = type(feature).__module__.split(".")[2]
        if name not in self._failed:  # once: the alarm is a fact, too
            self._failed.add(name)
            structlog.get_logger().error("feature.failed", feature=name, exc_info=error)
            text = f"a defect of {name}: {type(error).__name__}: {error}"
            self._alarms.activate(AlarmCode.TASK_FAILED, f"feature {name}", text, inf)
