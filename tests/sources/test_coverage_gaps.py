"""The gaps in the coverage of the sources."""

from ringfence.sources.state import (
    CHAN_SIP_TLS,
    WITHOUT_AMI,
    WITHOUT_CLIENTS,
    WITHOUT_LOG,
    WITHOUT_WIRE,
    coverage_gaps,
)


def test_each_missing_source_leaves_its_gap() -> None:
    """With all sources there is no gap."""
    assert coverage_gaps(ami=True, log=True, wire=True, chan_sip_tls=False) == []
    assert coverage_gaps(ami=True, log=False, wire=True, chan_sip_tls=False) == [WITHOUT_LOG]
    assert coverage_gaps(ami=False, log=True, wire=False, chan_sip_tls=False) == [WITHOUT_AMI, WITHOUT_WIRE]


def test_chan_sip_over_tls_is_a_gap_of_all_sources() -> None:
    """If chan_sip serves TLS, guesses by MESSAGE stay unseen, even with AMI, a log and the wire."""
    assert coverage_gaps(ami=True, log=True, wire=True, chan_sip_tls=True) == [CHAN_SIP_TLS]


def test_clients_behind_a_proxy_need_ami_and_the_wire() -> None:
    """Without AMI or the wire, no client of a proxy is known."""
    assert coverage_gaps(ami=True, log=True, wire=True, chan_sip_tls=False, proxies=True) == []
    gaps = coverage_gaps(ami=True, log=True, wire=False, chan_sip_tls=False, proxies=True)
    assert gaps == [WITHOUT_WIRE, WITHOUT_CLIENTS]
