"""The rules of the rations, which follow from the settings."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.firewalls import firewall
from tests.support.kept import ENFORCED, kept

from ringfence.config.converters import BackendName, Count
from ringfence.config.schema import AmiSettings, AsteriskSettings, Settings, WireSettings
from ringfence.features.ration.settings import RationSettings
from ringfence.features.ration.stage import AskingRation, Ration
from ringfence.firewall.limits import GUESTS, LimitMode
from ringfence.firewall.stages import stages
from ringfence.friends.startup import ROSTERS_LAST, SourceReadiness


@pytest.mark.parametrize(("attempts", "burst"), [(3, 2), (20, 19), (1, 1)])
def test_the_rations_follow_the_threshold_of_guesses(attempts: int, burst: int) -> None:
    """A stranger gets one refusal fewer than the rule counts attempts, but at least one; it asks as often."""
    guess = evolve(Settings().rules["guess"], attempts=Count(attempts))
    plan = Settings(rules={**Settings().rules, "guess": guess}).plan(None)
    ration, asking = plan.find(Ration), plan.find(AskingRation)
    assert ration is not None
    assert asking is not None
    assert (ration.burst, asking.burst) == (burst, attempts)


def test_without_the_rule_guess_there_is_no_ration() -> None:
    """If guesses lead to no ban, the kernel rations neither refusals nor requests."""
    guess = evolve(Settings().rules["guess"], enabled=False)
    plan = Settings(rules={**Settings().rules, "guess": guess}).plan(None)
    assert (plan.mode("ration"), plan.mode("asking")) == (LimitMode.OFF, LimitMode.OFF)


def test_requests_are_dropped_only_if_the_phones_are_known() -> None:
    """The ration of questions only observes if one of the PBXs has no AMI, or a proxy; off stays off."""
    blind = (AsteriskSettings(), AsteriskSettings(ami=AmiSettings(enabled=False)))
    behind = (AsteriskSettings(proxies=(ip_network("127.0.0.1"),)),)
    off = firewall(ration=RationSettings(asking=LimitMode.OFF))
    plans = [one.plan(None) for one in (Settings(), Settings(asterisk=blind), Settings(asterisk=behind))]

    assert [plan.mode("asking") for plan in plans] == [LimitMode.ENFORCE, *[LimitMode.OBSERVE] * 2]
    assert Settings(asterisk=blind, firewall=off).plan(None).mode("asking") is LimitMode.OFF


def test_strangers_of_a_pbx_with_guests_may_ask_more() -> None:
    """With guests, a stranger begins more flows, and sends more datagrams and bytes."""
    guests = Settings(asterisk=(AsteriskSettings(guests=True),))
    few, many = (one.plan(None).find(AskingRation) for one in (Settings(), guests))
    assert few is not None
    assert many is not None
    assert many == evolve(few, burst=GUESTS * few.burst, rate=GUESTS * few.rate)
    assert many.bytes_a_second == GUESTS * few.bytes_a_second
    assert (few.flows_a_second, many.flows_a_second) == (1, GUESTS)


def test_the_ration_of_questions_knows_the_ports_without_pages() -> None:
    """WebSocket over TLS is rationed byte by byte only where strangers read no pages."""
    pages = AsteriskSettings(wire=WireSettings(https_pages=True))
    assert Settings().plan(None).wss == (8089,)
    assert Settings(asterisk=(pages,)).plan(None).wss == ()


def test_the_ration_does_not_wait_for_the_friends(tmp_path: Path) -> None:
    """Before any friend is known, the ration drops already what is over it; off and observe stay."""
    for mode in LimitMode:
        folder = tmp_path / mode
        folder.mkdir()
        rationed = firewall(backend=BackendName("memory"), ration=RationSettings(mode=mode))
        with kept(folder, Settings(firewall=rationed)) as made:
            made.side.start()
            before = made.backend.plan
            made.side.exempt.friends.startup.update([SourceReadiness(since=0.0, roster_ready=True)], 0.0)
            made.side.kernel.rules.update()
            after = made.backend.plan

        assert (before.mode("limiter"), before.mode("ration")) == (LimitMode.OBSERVE, mode)
        assert (after.mode("limiter"), after.mode("ration")) == (LimitMode.ENFORCE, mode)


def test_the_ration_of_questions_waits_for_the_friends(tmp_path: Path) -> None:
    """Until every Asterisk sent its roster, the ration of questions observes, and reports that it waits."""
    seen = {}
    for mode in LimitMode:
        folder = tmp_path / mode
        folder.mkdir()
        rationed = firewall(backend=BackendName("memory"), ration=RationSettings(asking=mode))
        with kept(folder, Settings(firewall=rationed)) as made:
            made.side.start()
            before = made.backend.plan.mode("asking"), "asking" in made.side.kernel.rules.waiting
            made.side.exempt.friends.startup.update([SourceReadiness(since=0.0, roster_ready=True)], 0.0)
            made.side.kernel.rules.update()
            seen[mode] = (
                before,
                (made.backend.plan.mode("asking"), "asking" in made.side.kernel.rules.waiting),
            )

    off, observe, enforce = ((mode, False) for mode in LimitMode)
    assert seen[LimitMode.OFF] == (off, off)
    assert seen[LimitMode.OBSERVE] == (observe, observe)
    assert seen[LimitMode.ENFORCE] == ((LimitMode.OBSERVE, True), enforce)


def test_the_ration_of_questions_observes_while_rosters_are_missing(tmp_path: Path) -> None:
    """Without the AMI of an Asterisk for long, its phones may be unknown. The other limits still drop."""
    here, lost = (SourceReadiness(since=one, roster_ready=True) for one in (0.0, None))
    with kept(tmp_path, Settings(firewall=firewall(backend=BackendName("memory")))) as made:
        made.side.start()
        seen = []
        for source, now in ((here, 0.0), (lost, ROSTERS_LAST - 1), (lost, ROSTERS_LAST), (here, 700.0)):
            made.side.exempt.friends.startup.update([here, source], now)
            made.side.kernel.rules.update()
            plan = made.backend.plan
            seen.append((plan.mode("limiter"), plan.mode("ration"), plan.mode("asking")))

    drops, observes = (LimitMode.ENFORCE,) * 3, (LimitMode.ENFORCE, LimitMode.ENFORCE, LimitMode.OBSERVE)
    assert seen == [drops, drops, observes, drops]


def test_the_limiter_stands_before_the_ration_of_questions(tmp_path: Path) -> None:
    """A flood uses up no ration of questions, also after a part of the plan was replaced."""
    with kept(tmp_path, ENFORCED) as made:
        plan = made.side.kernel.wanted_rules.final
        for one in (plan, *(plan.adding(added) for added in plan.added)):
            names = [stage.name for stage in stages(one)]
            assert names.index("limiter") < names.index("ration of questions") < names.index("ration")
