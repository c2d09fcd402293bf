"""From the configuration to the parameters of a source's connection."""

import ssl
import subprocess
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ringfence.config.converters import LevelName, Name, Pattern, Port, Text, UserName
from ringfence.config.schema import AmiSettings, AsteriskSettings, CustomSettings, LogSettings
from ringfence.errors import SourceError
from ringfence.guard.source_manager import logs_of, target_of
from ringfence.parse.custom import Custom
from ringfence.sources.ami import AmiTarget
from ringfence.sources.logs import LogPlan
from ringfence.values.secret import Secret

SECRET = Secret("hunter2")


def settings(ami: AmiSettings) -> AsteriskSettings:
    """Return one Asterisk's settings."""
    return AsteriskSettings(name=Name("office"), ami=ami)


def context_of(ami: AmiSettings) -> ssl.SSLContext:
    """Return the TLS context of a connection with these settings."""
    tls = target_of(settings(ami)).tls
    assert tls is not None
    return tls.context()


def test_a_plain_target() -> None:
    """Without TLS a target has exactly the configured values."""
    ami = AmiSettings(
        host=Text("pbx.example"), port=Port(5039), username=Text("guard"), secret=SECRET, tls_verify=False
    )

    assert target_of(settings(ami)) == AmiTarget("office", "pbx.example", 5039, "guard", SECRET, None)


def test_tls_verifies_unless_it_is_switched_off() -> None:
    """With TLS the certificate and the host name are verified; tls_verify = false verifies neither."""
    strict = context_of(AmiSettings(secret=SECRET, tls=True))
    careless = context_of(AmiSettings(secret=SECRET, tls=True, tls_verify=False))

    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (careless.verify_mode, careless.check_hostname) == (ssl.CERT_NONE, False)


def test_tls_ca_is_trusted_in_place_of_the_systems_own(tmp_path: Path) -> None:
    """If tls_ca names a file, only that file's certificates are trusted."""
    file = tmp_path / "ca.pem"
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=pbx "
        f"-keyout {tmp_path}/key.pem -out {file}".split(),
        check=True,
        capture_output=True,
    )
    context = context_of(AmiSettings(secret=SECRET, tls=True, tls_ca=file))

    assert [certificate["subject"] for certificate in context.get_ca_certs()] == [((("commonName", "pbx"),),)]


def test_settings_without_their_secret_are_no_target() -> None:
    """Settings that were loaded without secrets cannot connect."""
    with pytest.raises(SourceError, match="office: the configuration was loaded without its secrets"):
        target_of(settings(AmiSettings()))


def test_logs_are_those_of_the_configuration() -> None:
    """Paths, time zone, journal and its users are passed on; custom lines become compiled patterns."""
    custom = CustomSettings(
        name=Name("agi"),
        level=LevelName("WARNING"),
        file=Text("res_agi.c"),
        pattern=Pattern("{any} from {address}"),
    )
    zone = ZoneInfo("UTC")
    users = (UserName("pbx"),)
    logs = LogSettings((Path("/a"),), zone, journal=True, journal_users=users, custom=(custom,))

    assert logs_of(AsteriskSettings(name=Name("office"), logs=logs)) == LogPlan(
        "office",
        paths=(Path("/a"),),
        journal=True,
        journal_users=("pbx",),
        timezone=zone,
        customs=(Custom.compile("{any} from {address}", level="WARNING", file="res_agi.c", name="agi"),),
    )
    assert logs_of(AsteriskSettings()) == LogPlan("asterisk")
