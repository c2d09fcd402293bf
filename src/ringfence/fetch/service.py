"""The process of the fetcher: it runs until SIGTERM. SIGHUP asks for all lists as soon as possible."""

import logging
import os
import signal
import ssl
import time
from pathlib import Path

import structlog

from ringfence.fetch.fetcher import Fetcher
from ringfence.fetch.plan import read_plan

_MAX_WAIT = 3_600.0  # seconds; the clock may be set meanwhile


def run(plan: Path) -> None:
    """Fetch the lists of the plan until SIGTERM or SIGINT. Raise FetchError if there is no plan."""
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    os.umask(0o022)  # the daemon reads the lists as another user
    fetcher = Fetcher(read_plan(plan), time.time, ssl.create_default_context())
    while True:
        got = signal.sigtimedwait(signals, min(fetcher.tick(), _MAX_WAIT))
        if got is not None and got.si_signo != signal.SIGHUP:
            return
        if got is not None:
            fetcher.hurry()
