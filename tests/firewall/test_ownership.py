"""One ringfence to a network namespace."""

import subprocess
import sys

import pytest
from tests.support.netns import netns

from ringfence.errors import FirewallBusyError
from ringfence.firewall.ownership import claim_sets

CLAIM_AND_DIE = """
import os
from ringfence.firewall.ownership import claim_sets
claim = claim_sets()
claim.__enter__()
print("claimed", flush=True)
input()
os.kill(os.getpid(), 9)
"""


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_the_second_is_refused_until_the_first_lets_go() -> None:
    """While one claim holds, a second raises FirewallBusyError; afterwards it succeeds."""
    with claim_sets(), pytest.raises(FirewallBusyError, match="systemctl stop ringfence"), claim_sets():
        pass
    with claim_sets():
        pass


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_another_namespace_is_another_claim() -> None:
    """The sets of another network namespace are others, and so is their claim."""
    with claim_sets(), netns(), claim_sets():
        pass


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_a_killed_process_holds_nothing() -> None:
    """A process that is killed leaves no claim behind."""
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM_AND_DIE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "claimed\n"
        with pytest.raises(FirewallBusyError), claim_sets():
            pass
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.wait(10) == -9
    with claim_sets():
        pass
