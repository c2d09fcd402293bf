"""Two hosts that share their bans by a real CrowdSec."""

import time
from ipaddress import ip_network
from pathlib import Path

import pytest
from tests.support.cable import CABLES, far_end
from tests.support.clock import SetClock
from tests.support.crowdsec import crowdsec
from tests.support.daemon import Guard, until
from tests.support.fleet import CLAIMED, denied, guesses, hosts
from tests.support.packets import OTHER, SIP, datagram

from ringfence.features.fleet.api import Api
from ringfence.features.fleet.decisions import SAME_END
from ringfence.features.fleet.settings import Access
from ringfence.features.fleet.sync import OwnBan, Pull, Push
from ringfence.values.secret import Secret

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

CABLE = CABLES["IPv4"]


def test_a_proven_ban_is_in_the_kernel_of_another_host(tmp_path: Path) -> None:
    """A proven ban of one host drops SIP at another one, and its unban ends that; a claimed ban stays."""
    with far_end() as far, hosts(tmp_path) as made:
        made.pbx.send(CLAIMED.replace(b"198.18.1.101", b"198.18.1.102"))
        until(lambda: "198.18.1.102" in made.one.banned(), "a claimed ban")
        made.pbx.send(guesses(CABLE.banned))
        until(lambda: CABLE.banned in denied(), "the ban at the other host")

        assert datagram(CABLE, far, SIP)[0] is False
        assert datagram(CABLE, far, OTHER) == (True, True)
        assert made.api.decisions() == {("ringfence/guess", CABLE.banned)}
        assert "decision ringfence/guess" in made.two.must("why", CABLE.banned)
        assert made.two.bans() == []
        until(lambda: made.one.ask("fleet")["decisions"] == 1, "its own decision")
        assert made.one.ask("fleet")["in_force"] == 0

        made.one.must("unban", CABLE.banned)
        until(lambda: CABLE.banned not in denied(), "the end at the other host")
        assert made.api.decisions() == set()
        until(lambda: made.one.ask("fleet")["decisions"] == 0, "the end of its own decision")


def test_bans_of_others_are_applied_and_end(tmp_path: Path) -> None:
    """A ban that an administrator adds at CrowdSec is applied at all hosts until it is deleted or ends."""
    with hosts(tmp_path) as made:
        made.api.ban("198.18.9.9")
        made.api.ban("198.18.9.8", "3s")
        made.api.ban("10.0.0.1")  # of a local network, so it is left out
        until(lambda: "198.18.9.9" in denied(), "the ban")
        until(lambda: made.one.ask("fleet")["in_force"] >= 1, "the ban at the other host")
        until(lambda: "198.18.9.8" not in denied(), "the end of the short ban")
        shown = made.two.must("fleet", "status")
        assert "cscli " in shown
        assert "as pbx-two" in shown
        made.api.delete("198.18.9.9")
        until(lambda: "198.18.9.9" not in denied(), "the end of the ban")
        assert "10.0.0.1" not in denied()

        made.api.cscli("decisions", "add", "--range", "198.18.8.7/24", "--duration", "1h")
        until(lambda: "198.18.8.0/24" in denied(), "the ban of a network")
        delete = "decisions delete --range 198.18.8.0/24"
        assert f"cscli {delete}," in " ".join(made.two.must("why", "198.18.8.9").split())
        made.api.cscli(*delete.split())
        until(lambda: "198.18.8.0/24" not in denied(), "the end of the ban of a network")


def test_both_hosts_are_equal_after_the_api_was_away(tmp_path: Path) -> None:
    """While the API is away, local bans go on; later they and the unbans arrive, also after a restart."""
    with hosts(tmp_path) as made:
        made.pbx.send(guesses("198.18.9.1"))
        until(lambda: "198.18.9.1" in denied(), "the first ban")
        made.api.kill()
        made.pbx.send(guesses("198.18.9.2"))
        until(lambda: "198.18.9.2" in made.one.banned(), "a ban without the API")
        made.one.must("unban", "198.18.9.1")
        until(lambda: made.one.ask("fleet")["push"]["problem"], "a failed push")
        assert "198.18.9.1" in denied()
        assert made.one.command("fleet", "status").returncode == 1
        made.one.kill()
        made.one.start()

        made.api.start()
        until(lambda: "198.18.9.2" in denied(), "the second ban")
        until(lambda: "198.18.9.1" not in denied(), "the end of the first ban")
        assert made.api.decisions() == {("ringfence/guess", "198.18.9.2")}


def test_a_ban_that_was_deleted_at_the_api_stays_deleted_after_a_restart(tmp_path: Path) -> None:
    """A host that was stopped meanwhile keeps its ban, and does not send it again."""
    with hosts(tmp_path) as made:
        made.pbx.send(guesses("198.18.9.1"))
        until(lambda: "198.18.9.1" in denied(), "the ban at the other host")
        made.one.kill()
        time.sleep(2 * SAME_END)  # a decision that ends sooner may be that of an earlier ban
        made.api.delete("198.18.9.1")
        until(lambda: "198.18.9.1" not in denied(), "the deletion")
        made.one.start()
        until(lambda: made.one.ask("fleet")["push"]["last"], "a request after the first answer")

        assert "198.18.9.1" in made.one.banned()
        assert made.one.ask("fleet")["waiting"] == 0
        assert made.api.decisions() == set()


def test_wrong_credentials_are_reported_and_can_be_corrected(tmp_path: Path) -> None:
    """Wrong credentials are reported, and correct files take effect without a restart."""
    (tmp_path / "crowdsec").mkdir()
    with crowdsec(tmp_path / "crowdsec") as api:
        table = api.node("pbx-a", tmp_path)
        for name in ("password", "key"):
            (tmp_path / f"crowdsec.{name}").write_text("wrong\n", "utf-8")
        with Guard(tmp_path, crowdsec=table) as guard:
            until(lambda: "401" in guard.ask("fleet")["push"]["problem"], "a refused login")
            until(lambda: "403" in guard.ask("fleet")["pull"]["problem"], "a refused key")
            assert "status 401" in guard.command("fleet", "test").stderr
            api.table("pbx-a", tmp_path)
            until(lambda: all(guard.ask("fleet")[one]["last"] for one in ("pull", "push")), "both work")
            assert guard.must("fleet", "test").startswith("ok  http://127.0.0.1:8080 stores and returns")
            assert api.decisions() == set()
            assert "password-of" not in guard.log
            assert "key-of" not in guard.log


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_ban_of_a_host_with_another_clock_lasts_as_long(tmp_path: Path, hours: int) -> None:
    """CrowdSec keeps a ban as long as the host does, although their clocks differ by hours."""
    (tmp_path / "crowdsec").mkdir()
    with crowdsec(tmp_path / "crowdsec") as api:
        api.node("pbx-a", tmp_path)
        access = Access(api.url, "pbx-a", lambda: Secret("password-of-pbx-a"), lambda: Secret("key-of-pbx-a"))
        client = Api(access, SetClock(wall=lambda: time.time() + hours * 3_600))
        client.send(Push((OwnBan(ip_network("198.51.100.7"), "guess", 3_600.0),)), 0.0)
        page = client.send(Pull(full=True), 0.0)
        assert page is not None
        assert [round(one.seconds, -2) for one in page.new] == [3_600.0]
