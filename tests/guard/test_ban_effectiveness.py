"""The alarm for bans that have no effect."""

from ipaddress import ip_network

from attrs import evolve
from tests.support.attempts import attempts
from tests.support.kept import OTHER, Kept

from ringfence.detect.judgement import Disposition, Judgement
from ringfence.guard.ban_effectiveness import ENOUGH, GRACE
from ringfence.values.attempt import Attempt, AttemptKind


def late(attempt: Attempt) -> Judgement:
    """Return the judgement on an attempt of a banned address."""
    return Judgement(attempt, ip_network(attempt.address), Disposition.LATE)


def test_attempts_well_after_a_ban_are_an_alarm(kept: Kept) -> None:
    """Several attempts of a banned address, well after its ban, are an alarm."""
    kept.side.start()
    kept.ban(OTHER)
    for number, attempt in enumerate(attempts(ENOUGH, OTHER)):
        kept.side.kernel.effectiveness.on_judgement(
            late(evolve(attempt, time=kept.now + GRACE + 1.0 + number))
        )
    for attempt in attempts(ENOUGH, "192.0.2.2"):  # not banned
        kept.side.kernel.effectiveness.on_judgement(late(evolve(attempt, time=kept.now + 60.0)))

    [alarm] = kept.alarms.active
    assert (alarm.code, alarm.subject) == ("ban.not_effective", OTHER)
    assert alarm.text.endswith("banned: they take a way past the rules")


def test_the_alarm_lasts_as_long_as_attempts_arrive(kept: Kept) -> None:
    """Attempts of half an hour have an alarm for all this time, also those of this host's own address."""
    kept.side.start()
    kept.ban(OTHER)
    [banned], [own] = attempts(1, OTHER), attempts(1, "198.18.0.1")
    for _ in range(30):
        kept.now += 60.0
        kept.side.kernel.effectiveness.on_judgement(late(evolve(banned, time=kept.now)))
        exempt = evolve(late(evolve(own, time=kept.now)), disposition=Disposition.EXEMPT)
        kept.side.kernel.effectiveness.on_judgement(exempt)
        kept.alarms.expire()

    assert {one.subject for one in kept.alarms.active} == {OTHER, "198.18.0.1"}


def test_of_exempt_addresses_only_this_hosts_own_are_an_alarm(kept: Kept) -> None:
    """Attempts of this host's own address are an alarm; those of another exempt address are not."""
    kept.side.start()
    for address in ("198.51.100.7", "198.18.0.1"):
        for attempt in attempts(ENOUGH, address):
            kept.side.kernel.effectiveness.on_judgement(evolve(late(attempt), disposition=Disposition.EXEMPT))

    assert [alarm.subject for alarm in kept.alarms.active] == ["198.18.0.1"]


def test_floods_of_a_banned_address_are_no_alarm(kept: Kept) -> None:
    """Floods after a ban are no sign that it has no effect: the limiter sees packets before a reject."""
    kept.side.start()
    kept.ban(OTHER)
    for number, attempt in enumerate(attempts(ENOUGH, OTHER)):
        flood = evolve(attempt, kind=AttemptKind.FLOOD, time=kept.now + GRACE + 1.0 + number)
        kept.side.kernel.effectiveness.on_judgement(late(flood))

    assert kept.alarms.active == []
