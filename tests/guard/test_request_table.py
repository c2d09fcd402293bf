"""The table of requests against arbitrary JSON: every request gets an answer or a clear refusal."""

import asyncio
import inspect
import json
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.support.kept import kept
from tests.support.kept import settings as configured
from tests.support.users import VALID

from ringfence import control_server
from ringfence.config.schema import Settings
from ringfence.control_server import Peer
from ringfence.errors import ControlError, RingfenceError
from ringfence.features.feeds.denied import Feeds
from ringfence.features.feeds.guard import FeedReporter
from ringfence.features.fence.guard import FenceRequests
from ringfence.features.fleet.denied import DecidedNetworks
from ringfence.features.fleet.guard import Fleet
from ringfence.features.fleet.shared import SharedBans
from ringfence.features.history.guard import History
from ringfence.features.notify.guard import Notifier
from ringfence.features.tops.guard import Tops
from ringfence.features.trial.guard import TrialWatch
from ringfence.guard.facts import FailureMemory
from ringfence.guard.request_fields import PeerRole
from ringfence.guard.request_table import REQUESTS, RequestGate, Rights, check_request
from ringfence.guard.requests import RequestHandlers

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["198.18.0.1", "2001:db8::/32", "DE", "AS64496", "a.example", "allow", "event", "\ud800"]
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
NAMES = sorted(
    {name for request in REQUESTS.values() for fields in request.fields.values() for name in fields}
)


@given(st.sampled_from(sorted(REQUESTS)), st.sampled_from(PeerRole), st.dictionaries(TEXTS, JSON, max_size=4))
def test_the_check_of_any_fields_ends(do: str, role: PeerRole, request: dict[str, Any]) -> None:
    """The check accepts a request or raises ControlError, whatever JSON it gets."""
    with suppress(ControlError):
        check_request(role, do, request)
        assert role in REQUESTS[do].fields
        assert request.keys() <= REQUESTS[do].fields[role].keys()


@pytest.mark.parametrize(
    ("do", "request_", "why"),
    [
        (
            "latest",
            {"kinds": [[["a"]]]},
            "latest: kinds must be a list of some of: event, attempt, ban, alarm",
        ),
        ("latest", {"kinds": []}, "latest: kinds must be"),
        ("bans", {}, "bans: most is missing; it must be a whole number from 1 to"),
        ("bans", {"most": 0}, "bans: most must be"),
        ("bans", {"most": True}, "bans: most must be"),
        ("bans", {"most": 1.0}, "bans: most must be"),
        ("ban", {"networks": ["198.18.0.1"], "seconds": float("nan")}, "ban: seconds must be"),
        ("ban", {"networks": ["198.18.0.1"], "seconds": float("inf")}, "ban: seconds must be"),
        ("ban", {"networks": ["198.18.0.1"], "seconds": 10**400}, "ban: seconds must be"),
        ("ban", {"networks": ["198.18.0.1"], "seconds": "60"}, "ban: seconds must be"),
        ("ban", {"networks": ["198.18.0.1"], "seconds": 0}, "ban: seconds must be"),
        ("ban", {"networks": [], "seconds": 60}, "ban: networks must be"),
        ("ban", {"networks": "198.18.0.1", "seconds": 60}, "ban: networks must be"),
        ("ban", {"networks": ["198.18.0.1/24"], "seconds": 60}, "ban: networks must be"),
        ("ban", {"networks": [7], "seconds": 60}, "ban: networks must be"),
        ("ban", {"networks": ["fe80::1%eth0"], "seconds": 60}, "ban: networks must be"),
        ("ban", {"networks": ["1.2.3.4"], "seconds": 60, "reason": "\ud800"}, "ban: reason must be"),
        ("ban", {"networks": ["1.2.3.4"], "seconds": 60, "force": "yes"}, "ban: force must be true or false"),
        ("why", {"network": {}}, "why: network must be an address or network"),
        ("why_account", {"account": ""}, "why_account: account must be a text of 1 to 256 characters"),
        ("tops", {"kind": "names"}, "tops: kind must be one of: accounts, addresses"),
        ("history", {"seconds": -1}, "history: seconds must be"),
        ("alarms_dismiss", {"numbers": ["1"]}, "alarms_dismiss: numbers must be"),
        ("alarms_dismiss", {"numbers": [1], "by": 7}, "alarms_dismiss: by must be"),
        ("status", {"now\x1b": 1}, r"status: there is no field now\x1b"),
        ("status", {"n" * 100: 1}, "status: there is no field " + "n" * 40),
    ],
)
def test_a_malformed_field_is_named(do: str, request_: dict[str, Any], why: str) -> None:
    """The refusal names the request and the field, and states what the field must be."""
    with pytest.raises(ControlError) as caught:
        check_request(PeerRole.ADMINISTRATOR, do, request_)

    assert str(caught.value).startswith(why)


@pytest.fixture(name="handlers", scope="module")
def _handlers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, control_server.Handler]]:
    """Return the handlers of a real firewall side, store and lists, behind the gate."""
    folder = tmp_path_factory.mktemp("gate")
    with kept(folder, configured()) as made:
        made.side.start()
        side = made.side
        memory = FailureMemory(side.exempt.friends.friends)
        status: Any = SimpleNamespace(collect=lambda _: pytest.fail("no status here"))
        plain = RequestHandlers(side, status, memory).handlers()
        [feeds] = (other for other in side.exempt.lists.others if isinstance(other, Feeds))
        apply = partial(DecidedNetworks(Settings()).apply, side.exempt.lists)
        store, clock = made.store, made.clock
        shared = SharedBans(store.connection, store.best_effort)
        fleet = Fleet(None, shared, side.detector.bans, clock, made.alarms, apply, 1_000)
        features = (
            FenceRequests(side),
            FeedReporter(side.exempt.lists, feeds, clock.wall),
            History(side),
            Tops(side),
            fleet,
            Notifier(Settings(), clock),
            TrialWatch(side, folder),
        )
        for feature in features:
            plain |= feature.handlers()
        wanted = {do: handler for do, handler in plain.items() if do not in {"status", "follow", "off", "on"}}
        gate = RequestGate(
            wanted,
            Rights(999),
            side.exempt.friends.friends,
            (),
            side.common.clock,
            side.common.store.best_effort,
        )
        yield dict(gate.handlers())


@settings(
    max_examples=3 * settings().max_examples,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(data=st.data())
def test_any_request_of_root_has_an_answer_or_an_error(
    handlers: dict[str, control_server.Handler], data: st.DataObject
) -> None:
    """No JSON that the socket can deliver makes a handler of the daemon fail by a defect."""
    do = data.draw(st.sampled_from(sorted(handlers)))
    fields = st.one_of(st.sampled_from(sorted(REQUESTS[do].fields[PeerRole.ADMINISTRATOR]) or NAMES), TEXTS)
    drawn = data.draw(st.dictionaries(fields, JSON, max_size=4))
    valid = VALID.get(do, {}) if data.draw(st.booleans()) else {}
    try:
        request = json.loads(json.dumps({**valid, **drawn}))
    except ValueError:  # an integer with too many digits for text
        return

    async def ask() -> None:
        control_server.PEER.set(Peer(0, 1))
        answer = handlers[do](request)
        assert inspect.isawaitable(answer)
        answer = await answer
        assert answer is not None

    with capture_logs(), suppress(RingfenceError):
        asyncio.run(ask())
