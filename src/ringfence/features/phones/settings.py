"""``[phones]``: after which time a phone counts as gone."""

from attrs import frozen

from ringfence.config.converters import Duration


@frozen
class PhonesSettings:
    """``[phones]``: how long a phone must be away until the alarm ``phone.gone`` lists it; None for never."""

    gone_after: Duration | None = None


TABLE = PhonesSettings
RESTART = True
