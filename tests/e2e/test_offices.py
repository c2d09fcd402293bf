"""An office whose phones have old passwords, at a real Asterisk."""

from collections.abc import Iterator

import pytest
from tests.support import open_pbx
from tests.support.asterisk_files import pjsip_account
from tests.support.daemon import until
from tests.support.guarded import end_shared, shared
from tests.support.lab import Lab
from tests.support.sip_raw import Raw, calling

pytestmark = pytest.mark.asterisk

ACCOUNTS = ("reception", "kitchen", "workshop", "store")
TRANSPORTS = ("UDP", "TCP", "TLS")


@pytest.fixture(scope="module", name="pbx")
def made_pbx() -> Iterator[Lab]:
    """Run an Asterisk with the accounts of an office."""
    texts = open_pbx.configured("22")
    texts["pjsip.conf"] += "".join(map(pjsip_account, ACCOUNTS))
    with Lab.made("22", texts) as lab:
        yield lab
        end_shared(lab)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_office_with_old_passwords_is_named_until_it_is_unbanned(pbx: Lab, transport: str) -> None:
    """Its phones are banned from the SIP ports, and an alarm asks whether they are phones of this PBX."""
    source = f"198.19.157.{1 + TRANSPORTS.index(transport)}"
    with shared(pbx) as guard:

        def alarms() -> dict[str, str]:
            found = guard.status()["alarms"]
            return {one["subject"]: one["text"] for one in found if one["code"] == "office.banned"}

        with calling(pbx, source, transport) as caller:
            for number in range(8):
                caller.guess(Raw(from_user=ACCOUNTS[number % len(ACCOUNTS)].encode()), "old", 2.0)
        until(lambda: [row["scope"] for row in guard.bans()] == ["sip"], "the ban")
        until(lambda: source in alarms(), "the alarm")
        assert f"ringfence allow add {source}, then ringfence unban {source}" in alarms()[source]
        guard.must("unban", source)
        assert alarms() == {}
