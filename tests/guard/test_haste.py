"""How long events may gather: only while the kernel rations whoever attempts something."""

from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from tests.support.attempts import ATTEMPT
from tests.support.kept import Kept

from ringfence.detect.judgement import Decision, Disposition, Judgement
from ringfence.detect.rules import RULES, By
from ringfence.features.ration.stage import AskingRation, Ration
from ringfence.firewall.contract import Opened
from ringfence.firewall.limits import LimitMode
from ringfence.guard.haste import HURRY, REST
from ringfence.guard.source_manager import WireReader
from ringfence.values.attempt import AttemptKind
from ringfence.values.ban import Scope
from ringfence.values.event import Service, Transport


@pytest.fixture(name="rationed")
def _rationed(kept: Kept) -> Kept:
    """Return the parts that guard, with a kernel that rations."""
    kept.side.start(verified=False)
    rations = AskingRation(LimitMode.ENFORCE), Ration(LimitMode.ENFORCE)
    kept.enforcer.plan = kept.enforcer.plan.adding(*rations)
    kept.enforcer.opened = Opened({4: None, 6: None})
    return kept


def judgement(disposition: Disposition = Disposition.COUNTED, **changes: Any) -> Judgement:  # noqa: ANN401
    """Return the judgement of a guess with these changes."""
    return Judgement(evolve(ATTEMPT, **changes), ip_network("192.0.2.1"), disposition)


def test_events_gather_while_the_kernel_rations(rationed: Kept) -> None:
    """A rest needs the rules of the ration in the kernel."""
    assert rationed.side.kernel.haste.rest() == REST


@pytest.mark.parametrize(
    "opened",
    [
        None,
        Opened({4: None, 6: None}, limits="this kernel has no hashlimit"),
        Opened({4: None, 6: "no ip6tables"}),
    ],
)
def test_nothing_gathers_without_the_rules(rationed: Kept, opened: Opened | None) -> None:
    """If the kernel lacks the rules, a ban in time is the only limit."""
    rationed.enforcer.opened = opened
    assert rationed.side.kernel.haste.rest() == 0


@pytest.mark.parametrize("mode", [LimitMode.OFF, LimitMode.OBSERVE])
def test_nothing_gathers_if_the_ration_drops_nothing(rationed: Kept, mode: LimitMode) -> None:
    """Without the ration of answers nothing limits a guesser; without that of questions, nothing by WSS."""
    enforcing = rationed.enforcer.plan
    for ration in (Ration(mode), AskingRation(mode)):
        rationed.enforcer.plan = enforcing.adding(ration)
        assert rationed.side.kernel.haste.rest() == 0


def test_nothing_gathers_while_enforcement_is_off(rationed: Kept) -> None:
    """After ``ringfence off`` there are no rules."""
    rationed.enforcer.switch_off()
    assert rationed.side.kernel.haste.rest() == 0


@pytest.mark.parametrize(
    "of",
    [
        judgement(Disposition.FRIEND),
        judgement(kind=AttemptKind.MANAGER, service=Service.AMI),
        judgement(kind=AttemptKind.PROBE),
        judgement(service=Service.IAX2),
        judgement(transport=Transport.WS),
        judgement(transport=Transport.WSS),
    ],
)
def test_an_attempt_that_is_not_rationed_hurries(rationed: Kept, of: Judgement) -> None:
    """After an attempt of a friend, or at another service, nothing gathers for a while."""
    haste = rationed.side.kernel.haste
    haste.on_judgement(of)
    assert haste.rest() == 0
    rationed.now += HURRY
    assert haste.rest() == REST


def test_a_distributed_attack_hurries(rationed: Kept) -> None:
    """Each of its senders asks too little for a ration."""
    rule = next(rule for rule in RULES if rule.by is By.ACCOUNT)
    attempt, haste = judgement(), rationed.side.kernel.haste
    ban = Decision(attempt.subject, rule, (), 0.0, Scope.SIP_UDP)
    haste.on_judgement(evolve(attempt, decision=ban))
    assert haste.rest() == 0


def test_unreadable_requests_that_wait_hurry(rationed: Kept) -> None:
    """A friend may send them, by TLS; AMI's answer shows what has been reported."""
    kernel = rationed.side.kernel
    pipeline: Any = SimpleNamespace(wire=None)
    rules, haste = kernel.wanted_rules, kernel.haste
    wire = WireReader(pipeline, rationed.detector, rationed.enforcer, rationed.clock, rules, haste)
    wire.ask_amis()
    assert kernel.haste.rest() == 0
    rationed.now += HURRY
    assert kernel.haste.rest() == REST


@pytest.mark.parametrize(
    "of", [judgement(), judgement(Disposition.EXEMPT, service=Service.IAX2), judgement(Disposition.LATE)]
)
def test_other_attempts_may_gather(rationed: Kept, of: Judgement) -> None:
    """The guesses of a stranger are rationed, and an exempt or banned sender needs no ban."""
    haste = rationed.side.kernel.haste
    haste.on_judgement(of)
    assert haste.rest() == REST
