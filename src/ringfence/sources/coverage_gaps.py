"""Attempts that the sources of an Asterisk cannot report, as lines for ``check`` and ``status``."""

WITHOUT_LOG = (
    "without a log, guesses by TLS and secure WebSocket whose bytes suppress Asterisk's events are not seen"
)
WITHOUT_WIRE = (
    "without the wire, guesses by UDP whose bytes suppress Asterisk's events cause no ban, and chan_sip's "
    "senders are known only if its log names them too"
)
WITHOUT_AMI = "without AMI, failed manager logins are listed and cause no ban, and no phone becomes a friend"

CHAN_SIP_TLS = (
    "no source reports guesses at chan_sip by MESSAGE, SUBSCRIBE and PUBLISH over TLS and secure WebSocket; "
    "fix: tlsenable = no and websocket_enabled = no in sip.conf [general], or serve both by PJSIP; "
    "accept_outofcall_message = no ends only those by MESSAGE"
)

WITHOUT_CLIENTS = (
    "attempts that come through a proxy name the proxy, which is never banned: AMI and the wire together "
    "name the client; fix: enabled = true in [asterisk.ami] and [asterisk.wire], and see: ringfence check"
)


def coverage_gaps(
    *, ami: bool, log: bool, wire: bool, chan_sip_tls: bool, proxies: bool = False
) -> list[str]:
    """Return a line for each kind of attempts that these sources cannot report.

    ``ami``, ``log``, ``wire``: this source is configured. The wire is the capture of SIP challenges that
    leave the host. ``chan_sip_tls``: chan_sip serves TLS or secure WebSocket. ``proxies``: SIP proxies stand
    in front of this Asterisk.
    """
    gaps = (
        (ami, WITHOUT_AMI),
        (log, WITHOUT_LOG),
        (wire, WITHOUT_WIRE),
        (not chan_sip_tls, CHAN_SIP_TLS),
        (not proxies or (ami and wire), WITHOUT_CLIENTS),
    )
    return [gap for there, gap in gaps if not there]
