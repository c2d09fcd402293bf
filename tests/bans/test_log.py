"""The lines that the daemon logs about bans, with all their fields: administrators search for them."""

import asyncio
from collections.abc import Callable, Mapping
from ipaddress import ip_network

import pytest
from attrs import evolve
from structlog.testing import capture_logs
from tests.support.attempts import attempts
from tests.support.world import OTHER, RULE, SUBJECT, World

from ringfence.bans import enforcer
from ringfence.bans.unban import unban_all
from ringfence.detect.judgement import Decision
from ringfence.detect.rules import HOUR
from ringfence.errors import ControlError, FirewallError
from ringfence.firewall.probe import Check, Direction, Verification

WARNING, ERROR, INFO = "warning", "error", "info"
BAN = {"address": "192.0.2.1/32", "seconds": 3_600, "rule": "guess", "attempts": 5, "accounts": ["alice"]}


def refuse(world: World) -> None:
    """Let the kernel refuse all changes of an address from now on."""
    world.backend.refuses[SUBJECT] = FirewallError("no answer")


def late(world: World) -> None:
    """Decide on a ban for attempts that are older than the ban is long."""
    world.now += 2 * HOUR
    world.enforcer.carry_out(Decision(SUBJECT, RULE, attempts(5), 0.0))


def refused_removal(world: World) -> None:
    """Allow a banned address, and let the kernel refuse to remove its ban."""
    world.decide()
    refuse(world)
    world.allow(SUBJECT)


def many_unbans(world: World) -> None:
    """Remove 25 bans, of which the kernel refuses one."""
    networks = [ip_network((0xCB007100 + number, 32)) for number in range(24)]
    world.enforcer.ban([SUBJECT, *networks], HOUR, "")
    refuse(world)
    with pytest.raises(ControlError, match="no answer"):
        asyncio.run(unban_all(world.enforcer))


def set_clock(world: World) -> None:
    """Set the clock an hour back."""
    world.ahead = -3_600.2
    world.wait(1.0)


def off(world: World) -> None:
    """Start while ringfence is switched off."""
    world.records.set_switched_off(True)
    world.enforcer.start()


def not_enforced(world: World) -> None:
    """Decide on a ban while ringfence is switched off."""
    world.enforcer.switch_off()
    world.decide()


def refused_ban(world: World) -> None:
    """Decide on a ban that the kernel refuses."""
    refuse(world)
    world.decide()


def restarted(world: World) -> None:
    """Start again: the kernel has one ban, has lost another, and has one without a record."""
    world.decide()
    world.decide(OTHER)
    world.backend.lose(OTHER)
    world.backend.put(ip_network("192.0.2.3"), world.now + HOUR)
    world.restart()


def compared(world: World) -> None:
    """Compare: the kernel has lost one ban, and has two without a record."""
    world.decide()
    world.backend.lose()
    for text in ("192.0.2.3", "192.0.2.4"):
        world.backend.put(ip_network(text), world.now + HOUR)
    asyncio.run(world.reconciler.compare())


def lost(world: World) -> None:
    """Check after another program has removed two bans."""
    world.decide()
    world.decide(OTHER)
    world.backend.lose()
    world.reconciler.check()


def repaired(world: World) -> None:
    """Check after another program has removed the rules."""
    world.backend.trouble = "no table"
    world.reconciler.check()


@pytest.mark.parametrize(
    ("act", "level", "event", "fields"),
    [
        (off, WARNING, "enforcement.off", {"fix": "ringfence on"}),
        (lambda world: world.enforcer.switch_off(), WARNING, "enforcement.off", {"fix": "ringfence on"}),
        (restarted, INFO, "bans.restored", {"kept": 1, "put_back": 1, "adopted": 1}),
        (World.decide, WARNING, "ban.placed", BAN),
        (refused_ban, ERROR, "ban.failed", {"error": "no answer", **BAN}),
        (
            not_enforced,
            WARNING,
            "ban.not_enforced",
            {"address": "192.0.2.1/32", "rule": "guess", "why": "switched off"},
        ),
        (late, INFO, "ban.expired", {"address": "192.0.2.1/32", "rule": "guess", "seconds_ago": 7_200}),
        (refused_removal, ERROR, "unban.failed", {"addresses": ["192.0.2.1/32"], "error": "no answer"}),
        (
            many_unbans,
            INFO,
            "ban.removed",
            {"addresses": [f"203.0.113.{number}/32" for number in range(20)], "number": 24},
        ),
        (set_clock, WARNING, "clock.set", {"seconds": -3_600}),
        (compared, WARNING, "bans.reconciled", {"put_back": 1, "adopted": 2}),
        (lost, ERROR, "bans.missing", {"number": 2}),
        (repaired, ERROR, "firewall.repaired", {"damage": "no table"}),
    ],
)
def test_a_line_has_its_fields(
    world: World, act: Callable[[World], None], level: str, event: str, fields: Mapping[str, object]
) -> None:
    """Each event is logged once, with its level and all its fields."""
    with capture_logs() as logs:
        act(world)

    [line] = [one for one in logs if one["event"] == event]
    assert line == {"event": event, "log_level": level, **fields}


def test_a_test_that_was_not_possible_is_logged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no packet can test one direction, the log has the direction and the reason."""
    check = Check(6, Direction.TO, verified=False, note="no route")
    monkeypatch.setattr(enforcer, "verify", lambda *_: Verification((check,)))
    with capture_logs() as logs:
        world.enforcer.start()

    [line] = [one for one in logs if one["event"] == "probe.untried"]
    assert line == {
        "event": "probe.untried",
        "log_level": INFO,
        "direction": "IPv6 to banned addresses",
        "why": "no route",
    }


def test_a_line_has_five_accounts_at_most(world: World) -> None:
    """Of six accounts that a sender tried, the log has the first five."""
    made = tuple(evolve(one, account=f"10{number}") for number, one in enumerate(attempts(6)))
    with capture_logs() as logs:
        world.enforcer.carry_out(Decision(SUBJECT, RULE, made, world.clock.mono()))

    assert logs[0]["accounts"] == ["100", "101", "102", "103", "104"]
