"""The metrics in the daemon: their server, which serves the pages of other features too."""

from ringfence.features.metrics.settings import MetricsSettings
from ringfence.guard.feature import Feature, Given


def build(given: Given) -> Feature | None:
    """Return the server of the metrics; None if it is not configured.

    Its library is only loaded if it is needed, because it takes 4 MB of memory.
    """
    metrics = given.reloader.settings.of(MetricsSettings)
    if metrics.listen is None:
        return None
    from ringfence.features.metrics.collector import DaemonMetrics  # noqa: PLC0415 - loaded where it is asked for
    from ringfence.features.metrics.server import MetricsServer  # noqa: PLC0415 - the same

    wire = given.wire.source if given.wire is not None else None
    found = DaemonMetrics(given.side, given.pipeline, given.sources, wire, given.others)
    return MetricsServer(metrics.listen, found.render, metrics.hosts, given.others)
