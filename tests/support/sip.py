r"""A SIP attacker (and a legitimate phone), run in a namespace; prints one line of JSON.

    ip netns exec NS python -m tests.support.sip guess --target 198.18.0.1:5060 --number 3000

Tests measure a ban by this result: a guess is *answered* when the guesser receives the final answer to the
request with the digest. The modes:

``guess``     REGISTER (or INVITE), 401, the same with a digest, its answer; one after the other, stopping
              at the first silence (no retransmission). From many ``--sources``, ``--parallel`` at a time.
``pipeline``  one nonce, then all guesses back to back from one socket, then reading until silence. If
              Asterisk's socket is full, the kernel drops requests, unless ``--window`` or ``--rate`` limits
              them.
``flood``     the same with requests without a digest, and without the nonce.
``probe``     single requests without a digest, each waiting for its answer.
``register``  a phone with the right password, once.

``{}`` in ``--account``, ``--password``, ``--call-id`` and ``--extension`` becomes the number of the guess.
``--number`` and ``--seconds`` limit a run, and have a maximum. It sends only to the laboratory's networks.
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from typing import Any

from tests.support.asterisk_files import PASSWORD
from tests.support.network import inside
from tests.support.sip_wire import (
    Challenge,
    Request,
    Wire,
    bracketed,
    branch_of,
    challenge_of,
    connect,
    status_of,
)
from tests.support.warm import start

MOST_GUESSES = 200_000
MOST_SECONDS = 300.0
_MOST_SOURCES = 5_000
_MOST_TIMES = 1_000


@dataclass(frozen=True)
class Plan:
    """The actions of the client in one run, the same from each source."""

    mode: str
    target: tuple[str, int]
    domain: str
    transport: str
    method: str
    account: str
    password: str
    extension: str
    call_id: bytes
    display: bytes
    to_tail: bytes
    username: str
    before_digest: bytes
    via: str
    number: int
    seconds: float
    timeout: float
    pause: float
    silences: int
    window: int
    reuse_nonce: bool
    rate: float


@dataclass
class Result:
    """The result of a run. ``sent`` and ``answered`` count guesses (in ``probe`` and ``flood``: requests).

    Times are seconds since the epoch; ``answered_at`` holds the first thousand. ``stopped`` is ``number``,
    ``silence`` or ``time``. ``by_source`` counts answered guesses if there were several sources.
    """

    sent: int = 0
    answered: int = 0
    challenges_sent: int = 0
    challenges_answered: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    stopped: str = "number"
    first_sent: float = 0.0
    last_answered: float = 0.0
    seconds: float = 0.0
    answered_at: list[float] = field(default_factory=list)
    by_source: dict[str, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Answered guesses a second, from the first request to the last answer."""
        elapsed = self.last_answered - self.first_sent
        return self.answered / elapsed if elapsed > 0 else 0.0

    def count_answer(self, status: int) -> None:
        """Count one answered guess."""
        now = time.time()
        self.answered += 1
        self.last_answered = now
        self.statuses[str(status)] = self.statuses.get(str(status), 0) + 1
        if len(self.answered_at) < _MOST_TIMES:
            self.answered_at.append(now)


class Caller:
    """The requests of one source and their answers."""

    def __init__(self, plan: Plan, source: str) -> None:
        self._plan = plan
        self._wire: Wire = connect(plan.transport, plan.target, source, plan.timeout)
        self._host = plan.domain or bracketed(plan.target[0])
        self._mark = os.urandom(5).hex()
        self._deadline = time.monotonic() + plan.seconds
        self._waiting: set[str] = set()
        self._kept: Challenge | None = None
        self.result = Result()

    def run(self) -> Result:
        """Carry out the plan, and return the result."""
        started = time.monotonic()
        self.result.first_sent = time.time()
        try:
            if self._plan.mode in {"pipeline", "flood"}:
                self._pipeline()
            else:
                self._sequence()
                self._drain(self._plan.timeout)
        finally:
            self._wire.close()
        self.result.seconds = time.monotonic() - started
        return self.result

    def _sequence(self) -> None:
        one = self._probe if self._plan.mode == "probe" else self._guess
        silences = 0
        for number in range(1, self._plan.number + 1):
            if time.monotonic() > self._deadline:
                self.result.stopped = "time"
                return
            silences = 0 if one(number) else silences + 1
            if silences >= self._plan.silences:
                self.result.stopped = "silence"
                return
            if self._plan.pause:
                time.sleep(self._plan.pause)

    def _probe(self, number: int) -> bool:
        return self._answered(self._request(number)) is not None

    def _guess(self, number: int) -> bool:
        request = self._request(number)
        challenge = self._kept or self._challenged(request)
        if challenge is None:
            return False
        answer = self._answered(self._digest(request, challenge, number))
        if answer is not None and self._plan.reuse_nonce:
            self._kept = challenge_of(answer) or challenge
        return answer is not None

    def _answered(self, request: Request) -> bytes | None:
        """Send a counted request, and return its answer; a late answer is counted when it arrives."""
        self.result.sent += 1
        answer = self._ask(request)
        if answer is None:
            self._waiting.add(request.branch)
        else:
            self.result.count_answer(status_of(answer))
        return answer

    def _challenged(self, request: Request) -> Challenge | None:
        self.result.challenges_sent += 1
        answer = self._ask(request)
        if answer is None:
            return None
        self.result.challenges_answered += 1
        challenge = challenge_of(answer)
        if challenge is None:
            key = f"{status_of(answer)} without a challenge"
            self.result.statuses[key] = self.result.statuses.get(key, 0) + 1
        return challenge

    def _pipeline(self) -> None:
        guessing = self._plan.mode == "pipeline"
        challenge = self._challenged(self._request(0)) if guessing else None
        if guessing and challenge is None:
            self.result.stopped = "silence"
            return
        began = time.monotonic()
        for number in range(1, self._plan.number + 1):
            if self._plan.rate:
                self._wait_until(began + number / self._plan.rate)
            request = self._request(number)
            if challenge is not None:
                request = self._digest(request, challenge, number)
            self._waiting.add(request.branch)
            self._wire.send(request.encode())
            self.result.sent += 1
            if len(self._waiting) >= self._plan.window:
                self._drain(self._plan.timeout, down_to=self._plan.window - 1)
        self._drain(max(1.0, self._plan.timeout))

    def _wait_until(self, moment: float) -> None:
        """Count answers until ``moment``."""
        while (left := moment - time.monotonic()) > 0:
            message = self._wire.receive(left)
            if message is not None:
                self._count_late(message)

    def _drain(self, quiet: float, down_to: int = 0) -> None:
        """Count answers until only ``down_to`` are missing, or until none comes for ``quiet`` seconds."""
        while len(self._waiting) > down_to and time.monotonic() < self._deadline:
            message = self._wire.receive(quiet)
            if message is None:
                return
            self._count_late(message)

    def _count_late(self, message: bytes) -> None:
        status, branch = status_of(message), branch_of(message)
        if status >= 200 and branch in self._waiting:
            self._waiting.remove(branch)
            self.result.count_answer(status)

    def _digest(self, request: Request, challenge: Challenge, number: int) -> Request:
        password = self._plan.password.replace("{}", str(number))
        return request.authorized(challenge, password, self._branch(number, 2), self._plan.before_digest)

    def _request(self, number: int) -> Request:
        plan = self._plan
        text = str(number)
        return Request(
            method=plan.method,
            account=plan.account.replace("{}", text),
            host=self._host,
            contact=self._wire.contact,
            transport=plan.transport,
            branch=self._branch(number, 1),
            call_id=plan.call_id.replace(b"{}", f"{self._mark}-{text}".encode()),
            sequence=1,
            extension=plan.extension.replace("{}", text),
            via=plan.via,
            display=plan.display,
            to_tail=plan.to_tail,
            username=plan.username,
        )

    def _branch(self, number: int, sequence: int) -> str:
        return f"z9hG4bK{self._mark}-{number}-{sequence}."

    def _ask(self, request: Request) -> bytes | None:
        """Send a request and return its final answer; None if it did not come in time."""
        self._wire.send(request.encode())
        mark = request.branch.encode()
        deadline = time.monotonic() + self._plan.timeout
        while (message := self._wire.receive(self._plan.timeout)) is not None:
            if mark in message and status_of(message) >= 200:
                if request.method == "INVITE":
                    self._wire.send(request.acknowledged(message))
                return message
            self._count_late(message)
            if time.monotonic() > deadline:
                break
        return None


def merged(results: dict[str, Result]) -> Result:
    """Add up the results of several sources."""
    every = list(results.values())
    if len(every) == 1:
        return every[0]
    total = Result(by_source={source: result.answered for source, result in results.items()})
    statuses: Counter[str] = Counter()
    for result in every:
        statuses.update(result.statuses)
    total.statuses = dict(statuses)
    for name in ("sent", "answered", "challenges_sent", "challenges_answered"):
        setattr(total, name, sum(getattr(result, name) for result in every))
    total.first_sent = min(result.first_sent for result in every)
    total.last_answered = max(result.last_answered for result in every)
    total.seconds = max(result.first_sent + result.seconds for result in every) - total.first_sent
    total.answered_at = sorted(itertools.chain(*(result.answered_at for result in every)))[:_MOST_TIMES]
    total.stopped = next((reason for reason in ("time", "silence") if _any_stopped(every, reason)), "number")
    return total


def _any_stopped(results: list[Result], reason: str) -> bool:
    return any(result.stopped == reason for result in results)


def run(plan: Plan, sources: list[str], parallel: int) -> Result:
    """Carry out a plan from every source, ``parallel`` of them at a time."""
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        results = pool.map(lambda source: Caller(plan, source).run(), sources)
        return merged(dict(zip(sources, results, strict=True)))


def expand(sources: str) -> Iterator[str]:
    """Yield the addresses of ``A,B-C,...``; a range includes both its ends."""
    for part in sources.split(","):
        first, _, last = part.partition("-")
        low = ip_address(first)
        high = ip_address(last or first)
        for value in range(int(low), int(high) + 1):
            yield str(type(low)(value))


class Attack:
    """A client that runs in a namespace while the test continues."""

    def __init__(self, namespace: str, *arguments: str) -> None:
        command = inside(namespace, sys.executable, "-m", "tests.support.sip", *arguments)
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - result() reads it
        self._process = start(command, stdout=self._output)

    @property
    def at_work(self) -> bool:
        """Whether the client still runs."""
        return self._process.poll() is None

    def result(self) -> Result:
        """Wait for the client's end and return its result."""
        with self._output:
            code = self._process.wait(MOST_SECONDS + 30)
            if code:
                raise RuntimeError(f"the SIP client failed with exit status {code}")
            self._output.seek(0)
            values: dict[str, Any] = json.load(self._output)
        return Result(**values)

    def stop(self) -> None:
        """Kill the client if it still runs; do nothing after :meth:`result`."""
        if not self._output.closed:
            with self._output:
                self._process.kill()
                self._process.wait()


def attack(namespace: str, *arguments: str) -> Result:
    """Run the client in a namespace and return its result: ``attack(ns, "guess", "--number", "10")``."""
    return Attack(namespace, *arguments).result()


def _target(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _raw(text: str) -> bytes:
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


def options_of(*arguments: str) -> argparse.Namespace:
    """Parse a command line, without the program's name."""
    return _parser().parse_args(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.support.sip", description="SIP client of the lab.")
    add = parser.add_argument
    add("mode", choices=("guess", "pipeline", "flood", "probe", "register"))
    add("--target", type=_target, default=("198.18.0.1", 5060), help="HOST:PORT, [HOST]:PORT")
    add("--domain", default="", help="the host for which the requests ask (default: that of the target)")
    add("--transport", choices=("UDP", "TCP"), default="UDP")
    add("--method", choices=("REGISTER", "INVITE", "OPTIONS"), default="REGISTER")
    add("--account", default="alice", help="the account; {} is the guess's number (unknown accounts)")
    add("--password", help="default: a new wrong one for each guess; for register the right one")
    add("--extension", default="100", help="the extension to call with INVITE or OPTIONS")
    add("--call-id", type=_raw, default=b"{}@lab", help=r"with Python's escapes: 'a\xff{}'")
    add("--display", type=_raw, default=b"", help=r"text before the From URI: '\"x\x1b\" '")
    add("--to-tail", type=_raw, default=b"", help=r"text after the To URI")
    add("--username", default="", help="the digest's username (default: the account)")
    add("--before-digest", type=_raw, default=b"", help=r"header lines before the digest, each with its \r\n")
    add("--via", default=";rport", help="parameters of the Via, as ';rport;maddr=203.0.113.9'")
    add("--number", type=int, default=1, help="guesses from each source")
    add("--seconds", type=float, default=30.0, help="maximum time of each source")
    add("--timeout", type=float, help="seconds to wait for an answer (default: 1, for register 5)")
    add("--pause", type=float, default=0.0, help="seconds between guesses")
    add("--silences", type=int, default=2, help="stop after so many unanswered in a row")
    add("--sources", default="", help="A, A-B or A,B-C (default: 198.18.1.1 or fd00:18::a)")
    add("--parallel", type=int, default=1, help="sources at a time")
    add(
        "--window",
        type=int,
        default=MOST_GUESSES,
        help="pipeline, flood: maximum of unanswered requests",
    )
    add("--rate", type=float, default=0.0, help="pipeline, flood: requests per second (0: no limit)")
    add("--reuse-nonce", action="store_true", help="answer the last 401 instead of asking for a new one")
    return parser


def plan_of(options: argparse.Namespace) -> Plan:
    """Return the plan of the options; raise ValueError if a number exceeds its maximum."""
    if not 0 < options.number <= MOST_GUESSES or not 0 < options.seconds <= MOST_SECONDS:
        raise ValueError(f"at most {MOST_GUESSES} guesses in at most {MOST_SECONDS:.0f} seconds")
    legitimate = options.mode == "register"
    names = set(Plan.__dataclass_fields__)
    values = {name: value for name, value in vars(options).items() if name in names}
    values["password"] = options.password or (PASSWORD if legitimate else "wrong-{}")
    values["number"] = 1 if legitimate else options.number
    values["timeout"] = options.timeout or (5.0 if legitimate else 1.0)
    return Plan(**values)


def main() -> None:
    """Run from the command line."""
    options = options_of(*sys.argv[1:])
    plan = plan_of(options)
    default = "fd00:18::a" if ":" in plan.target[0] else "198.18.1.1"
    sources = list(itertools.islice(expand(options.sources or default), _MOST_SOURCES + 1))
    if len(sources) > _MOST_SOURCES:
        raise ValueError(f"at most {_MOST_SOURCES} sources")
    print(json.dumps(asdict(run(plan, sources, options.parallel))))


if __name__ == "__main__":
    main()
