"""Phones that are gone, on a real Asterisk: a line that is down, one phone, and restarts."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from tests.support.daemon import Guard, until
from tests.support.guarded import guarded
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4
from tests.support.phones import Phone, configured, phones_at

from ringfence.features.phones.absence import DAY, SavedPhone
from ringfence.features.phones.guard import LOOK_EVERY
from ringfence.features.phones.table import PhonesTable
from ringfence.store.database import Store

pytestmark = pytest.mark.asterisk

OFFICE, HOME = "198.19.94.7", "198.19.95.8"
AFTER = 1
OFFICE_PHONES, HOME_PHONES, NEW = ["phone1", "phone2"], ["phone3", "phone4"], "phone5"


@define
class Desk:
    """Phones that answer Asterisk's requests until they are switched off."""

    phones: Sequence[Phone]
    _off: threading.Event = field(factory=threading.Event)
    _threads: list[threading.Thread] = field(factory=list)

    def switch_on(self, *phones: Phone) -> None:
        """Register all phones, or only these, and let them answer from now on.

        A phone forgets its nonce when it is switched off. This matters after a restart of Asterisk: chan_sip
        answers an old nonce by a challenge that does not say ``stale``, which the phone takes for a refusal.
        """
        some = phones or self.phones
        self._off.clear()
        for phone in some:
            phone.reboot()
        assert [phone.register(expires=600) for phone in some] == [200] * len(some)
        self._threads = [threading.Thread(target=self._answer, args=(phone,)) for phone in some]
        for thread in self._threads:
            thread.start()

    def switch_off(self) -> None:
        """Answer no more."""
        self._off.set()
        for thread in self._threads:
            thread.join()

    def _answer(self, phone: Phone) -> None:
        while not self._off.is_set():
            phone.listen(0.2)


@contextmanager
def desk(lab: Lab, address: str, accounts: Sequence[str], port: int) -> Iterator[Desk]:
    """Yield phones behind one address, which are registered and answer."""
    with phones_at(lab, address, accounts, (PBX_IPV4, port)) as phones:
        made = Desk(phones)
        made.switch_on()
        try:
            yield made
        finally:
            made.switch_off()


def numbers(guard: Guard) -> tuple[int, int]:
    """Return the numbers of phones that are registered, and that are gone."""
    status = guard.ask("status")
    return status["phones_registered"], status["phones_gone"]


def alarms(guard: Guard) -> list[str]:
    """Return the texts of the alarm."""
    rows: list[dict[str, Any]] = guard.ask("status")["alarms"]
    return [row["text"] for row in rows if row["code"] == "phone.gone"]


def record_phones(folder: Path) -> None:
    """Record in a guard's database that the phones have been registered for two days."""
    now = time.time()
    places = [*((name, OFFICE) for name in OFFICE_PHONES), *((name, HOME) for name in HOME_PHONES)]
    phones = [SavedPhone("pbx", name, ip_address(place), now - 2 * DAY, now) for name, place in places]
    with Store.open(folder / "ringfence.db", owner=True) as store:
        PhonesTable(store.connection).replace(phones)


@pytest.mark.parametrize(
    ("release", "port"),
    [
        pytest.param("16", 5060, id="chan_sip"),
        pytest.param("22", 5060, id="pjsip"),
        pytest.param("16", 5080, id="pjsip-of-16", marks=pytest.mark.long),
    ],
)
def test_phones_that_are_gone_are_one_alarm(tmp_path: Path, release: str, port: int) -> None:
    """A line that is down and a phone that unregisters are listed, also after a restart of the daemon.

    An Asterisk that was down, and forgot its phones, has lost none of them.
    """
    record_phones(tmp_path)
    with (
        Lab.made(release, configured(release)) as lab,
        desk(lab, OFFICE, OFFICE_PHONES, port) as office,
        desk(lab, HOME, HOME_PHONES, port) as home,
        guarded(lab, tmp_path, phones={"gone_after": f"{AFTER}s"}) as guard,
    ):
        assert numbers(guard) == (4, 0)
        office.switch_off()
        if port == 5060 and release == "16":  # chan_sip asks a phone once a minute only
            assert [phone.unregister() for phone in office.phones] == [200, 200]
        home.switch_off()
        assert home.phones[0].unregister() == 200
        home.switch_on(home.phones[1])
        until(lambda: numbers(guard) == (1, 3), "the phones to be gone")
        [text] = alarms(guard)
        line, other = text.split("; ")
        assert line.startswith("all 2 phones of 198.19.94.0/24 since ")
        assert line.endswith("(phone1, phone2): it is the line or the power there")
        assert other.startswith("1 of 2 phones of 198.19.95.0/24 since ")

        guard.stop()
        with desk(lab, HOME, [NEW], port):
            guard.start()
            until(lambda: numbers(guard)[0] > 1, "the phone that registered during the restart")
            assert numbers(guard) == (2, 3)
        office.switch_on()
        until(lambda: numbers(guard)[1] == 1, "the office to be back")
        assert len(alarms(guard)) == 1

        office.switch_off()
        home.switch_off()
        for family in ("registrar", "SIP/Registry"):
            lab.asterisk.cli(f"database deltree {family}")
        lab.asterisk.stop()
        lab.asterisk.start()
        until(lambda: numbers(guard)[0] == 0, "a list without phones")
        time.sleep(AFTER + LOOK_EVERY)
        assert numbers(guard) == (0, 1)
