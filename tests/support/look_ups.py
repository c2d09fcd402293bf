"""A laboratory whose name server is silent, and datagrams that make Asterisk look up names."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import evolve
from tests.support.lab import Lab
from tests.support.open_pbx import configured
from tests.support.sip_raw import OWN_CHALLENGE, Caller, Digest, Raw

OWN_NAME = os.uname().nodename
PJSIP_ONLY = "\n[global]\ntype = global\ntaskprocessor_overload_trigger = pjsip_only\n"
"""A section of pjsip.conf with the setting that `check` recommends."""
PHONE = Raw(via=b";rport")
"""A request of a phone, to which Asterisk answers at once."""
BROADCAST = Raw(via=b";maddr=255.255.255.255")
"""A request whose answer Asterisk cannot send, so that it looks up its own name."""
_SECOND_FRAGMENT = b"X-Padding: " + b"x" * 1_600 + b"\r\n"
_SILENT = "iptables -I INPUT -p udp --dport 53 -j DROP"
_SERVER = "nameserver 198.18.1.200\n"


@contextmanager
def with_silent_names(folder: Path, pjsip: str = "", options: str = "") -> Iterator[tuple[Lab, Path]]:
    """Yield a laboratory whose name server is silent, and its folder /etc, which has Asterisk's own name.

    ``pjsip`` is added to pjsip.conf, and ``options`` to resolv.conf.
    """
    texts, etc = configured("22"), folder / "etc"
    texts["pjsip.conf"] += pjsip
    with Lab.made("22", texts) as lab:
        tree = lab.asterisk.tree / "etc"
        shutil.copytree(tree, etc, symlinks=True)
        for file, text in (("resolv.conf", _SERVER + options), ("hosts", f"127.0.1.1 {OWN_NAME}\n")):
            (etc / file).unlink(missing_ok=True)
            (etc / file).write_text(text, "utf-8")
        mount = ["nsenter", f"--target={lab.asterisk.pid}", "--mount", "mount", "--bind", str(etc), str(tree)]
        subprocess.run(mount, check=True, timeout=10)
        subprocess.run(lab.network.in_attacker(*_SILENT.split()), check=True, timeout=10)
        yield lab, etc


def hidden_guess(number: int) -> Raw:
    """Return a guess like ``BROADCAST``, hidden from AMI, with its credentials in the second fragment."""
    hidden = evolve(BROADCAST, call_id=b"\xffm{}", from_display=b'"x\x1b[" ')
    padded = evolve(hidden, digest=Digest(before=_SECOND_FRAGMENT))
    return padded.answering(OWN_CHALLENGE, f"wrong-{number}")


def seconds_without_sip(phone: Caller, watched: float) -> int:
    """Ask once a second for ``watched`` seconds; return in how many seconds no answer came."""
    end, silent = time.monotonic() + watched, 0
    while (begun := time.monotonic()) < end:
        silent += phone.ask(PHONE, 1.0) is None
        time.sleep(max(0.0, begun + 1.0 - time.monotonic()))
    return silent
