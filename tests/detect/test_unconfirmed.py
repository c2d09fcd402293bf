"""Why an attempt is unconfirmed, in a sentence for the administrator."""

import pytest
from attrs import evolve
from tests.support.attempts import attempts

from ringfence.detect.unconfirmed import why_unconfirmed
from ringfence.model import Service

_LOG = "log:/var/log/ringfence/ringfence#notice"


@pytest.mark.parametrize(
    ("service", "sources", "words"),
    [
        (Service.PJSIP, (_LOG,), "only the log names this address"),
        (Service.SIP, (_LOG,), "only the log names this address"),
        (Service.SIP, ("ami",), "chan_sip's events name whatever address a Via header gives"),
        (Service.SIP, ("ami", _LOG), "chan_sip's events name whatever address a Via header gives"),
        (Service.IAX2, (_LOG,), "only the log reports IAX2"),
        (Service.DIALPLAN, (_LOG,), "only the log reports the dialplan"),
        (Service.AMI, ("ami",), "in an event that a sender can forge"),
        (Service.PJSIP, ("wire",), "what the wire sees by TCP"),
    ],
)
def test_the_reason_names_the_source_that_names_the_address(
    service: Service, sources: tuple[str, ...], words: str
) -> None:
    """Each source has its own way to be forged, and the sentence states that one."""
    [attempt] = attempts(1)

    assert words in why_unconfirmed(evolve(attempt, service=service, sources=sources, trusted=False))
