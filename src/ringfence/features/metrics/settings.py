"""``[metrics]``: the settings of the server of the metrics."""

from collections.abc import Mapping

from attrs import frozen

from ringfence.config.converters import HostName, ListenAddress


@frozen
class MetricsSettings:
    """``[metrics]``: the address on which Prometheus can read metrics, None for none.

    With ``remote`` it may be an address that other hosts reach. ``hosts`` are host names by which Prometheus
    reaches it.
    """

    listen: ListenAddress | None = None
    remote: bool = False
    hosts: tuple[HostName, ...] = ()


TABLE = MetricsSettings
RESTART = True


def problems(metrics: MetricsSettings, _: Mapping[str, object]) -> list[str]:
    """Return a problem if other hosts could read the metrics and the configuration does not ask for it."""
    listen = metrics.listen
    if listen is None or listen.address.is_loopback or metrics.remote:
        return []
    risk = f"every host that reaches {listen.address} could read the metrics without a login"
    return [f"metrics.listen: {risk}; fix: 127.0.0.1 or [::1], or remote = true in [metrics]"]
