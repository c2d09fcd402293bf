"""The alarm about metrics that cannot be served: its code, and what it means and asks for."""

from ringfence.alarm_codes import AnyAlarmCode


class MetricsAlarmCode(AnyAlarmCode):
    """The code of the alarm that the metrics for Prometheus cannot be served."""

    METRICS_UNAVAILABLE = (
        "metrics.unavailable",
        "The metrics cannot be served.",
        "Free the address and port, or change `listen` in `[metrics]`.",
    )


CODES = MetricsAlarmCode
