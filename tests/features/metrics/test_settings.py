"""``[metrics]``: the address of the metrics, and which clients reach it."""

import pytest

from ringfence.config.loader import parse
from ringfence.errors import ConfigError
from ringfence.features.metrics.settings import MetricsSettings


def address(listen: str, **more: object) -> str:
    """Return the address at which the metrics are served with this table."""
    found = parse({"metrics": {"listen": listen, **more}}, "here", {}, secrets=False)
    return str(found.of(MetricsSettings).listen)


@pytest.mark.parametrize("listen", ["192.0.2.1:9721", "0.0.0.0:9721", "[::]:9721"])
def test_metrics_are_for_this_host_unless_the_administrator_asks_for_more(listen: str) -> None:
    """An address that other hosts may reach needs ``remote``; loopback does not."""
    with pytest.raises(ConfigError, match="remote = true") as error:
        address(listen)
    assert [problem.partition(":")[0] for problem in error.value.problems] == ["metrics.listen"]

    assert address(listen, remote=True) == listen
    for loopback in ("127.0.0.1:9721", "127.1.2.3:80", "[::1]:9721"):
        assert address(loopback) == loopback
