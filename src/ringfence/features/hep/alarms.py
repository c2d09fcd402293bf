"""The alarm about Asterisk's export (HEP): its code, and what it means and asks for."""

from ringfence.alarm_codes import AnyAlarmCode


class HepAlarmCode(AnyAlarmCode):
    """The code of the alarm about decrypted SIP messages that Asterisk should export, but does not."""

    HEP_MISSING = (
        "hep.missing",
        "Asterisk's export (HEP) lacks messages of TLS or WSS: it is not set up, or a sender prevents it.",
        "If `ringfence check` finds that nothing arrives, set up `hep.conf`. Otherwise do nothing.",
    )


CODES = HepAlarmCode

NO_EXPORT = (
    "Asterisk exports nothing; fix: in hep.conf enabled = yes and capture_address = 127.0.0.1:9060, then in "
    "Asterisk's console: module reload res_hep.so, module load res_hep_pjsip.so; see: module show like hep"
)
"""The alarm's text if AMI reports messages by TLS or WSS, but Asterisk exports none of them."""
