"""A fleet of shippers and one Elasticsearch, simulated through an outage:  python scripts/fleet.py [--hosts N] ...

Shows what the server sees when it comes back: requests and documents a second, against the mean before. Each host makes events
as recorded on a real one, gathers and sends as monitor/ship does, and waits by the product's own Backoff, in simulated time.
What it leaves out: the network, the size of single documents, several nodes. docs/scaling.md explains the results.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass, field
from typing import Any, cast

from monitor.ship import backoff, shipper
from monitor.ship.bulk import Trouble

PROFILES = {
    # Events a second (profile full), second by second, of a machine with 2 CPUs: little to do; people who build and test.
    "calm": (19, 90, 108, 31, 15, 17, 22, 38, 24, 24, 24, 22),
    "build": (
        2264, 216, 305, 8027, 6227, 2391, 3324, 3139, 2893, 6317, 3929, 5182, 3076, 3742, 3946, 1939, 1204, 1684, 3074,
        1781, 5154, 5721, 2832, 3078, 2693, 597, 159, 19, 90, 108, 861, 1738, 447, 1854, 142, 994, 164, 1022, 189, 779,
        249, 369, 1335, 158, 31, 15, 17, 22, 38, 495, 569, 24, 1140, 24, 528, 369, 24, 228,
    ),
}  # fmt: skip
STEP_S = 0.25
COMMIT_S = 1.0
"""a line is shipped once it is durable: commit_interval_ms"""
QUEUE_S = 2.0
"""so much work may wait at the server, in seconds of its capacity, before it answers 429"""
OVERHEAD_S = 0.03
DOWN = Trouble("connection", "refused", wait=True, unreachable=True)
FULL = Trouble("busy", "429", wait=True)


class Clock:
    """Simulated time, in place of the module `time` in the back-off."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    time = monotonic


@dataclass
class Host:
    """One shipper with its log."""

    profile: tuple[int, ...]
    at: int
    """where in its profile it begins: hosts do not act in step"""
    phase: float
    """when in a second its commits are"""
    trouble: backoff.Backoff
    backlog: float = 0.0
    flights: list[float] = field(default_factory=list)
    """when the answers to its bulks come"""
    knocked: float = -1e9
    committed: float = 0.0


@dataclass
class Result:
    """What the server saw, by step: requests (bulks, refused ones and knocks included) and documents indexed."""

    requests: list[float]
    documents: list[float]
    caught_up_s: float
    """seconds from the end of the outage until no host had more waiting than a burst of its own (60 at least)"""
    mean_requests: float
    mean_documents: float
    end: int
    """step at which the server was back"""

    def peak(self, values: list[float], window_s: float = 5.0) -> float:
        """The most a second of any window after the outage."""
        width = max(1, int(window_s / STEP_S))
        after = values[self.end :]
        sums = [sum(after[i : i + width]) for i in range(max(1, len(after) - width))]
        return max(sums) / (width * STEP_S)


def simulate(hosts: int, profile: str, outage_s: float, capacity: float, batch: int, seed: int = 1) -> Result:
    """`capacity`: documents a second that the server takes, as a multiple of the fleet's mean. Runs until all is delivered."""
    choose, clock = random.Random(seed), Clock()  # noqa: S311 - a simulation: the same result each time
    cast(Any, backoff).time = clock
    events = PROFILES[profile]
    fleet = [
        Host(events, choose.randrange(len(events)), choose.random(), backoff.Backoff(_random=choose))
        for _ in range(hosts)
    ]
    mean, most = hosts * sum(events) / len(events), max(events) + batch
    before = 60.0
    down, up = before, before + outage_s
    queue, step, requests, documents = 0.0, 0, list[float](), list[float]()
    while clock.now < up + 60 or any(host.backlog > most for host in fleet):
        done = min(queue, capacity * mean * STEP_S)
        queue -= done
        asked = 0.0
        choose.shuffle(fleet)
        for host in fleet:
            _produce(host, clock.now)
            host.flights = [at for at in host.flights if at > clock.now]
            sent, accepted = _ship(host, clock, not down <= clock.now < up, queue, capacity * mean, batch)
            asked, queue = asked + sent, queue + accepted
        requests.append(asked)
        documents.append(done)
        step += 1
        clock.now = step * STEP_S
        if clock.now > up + 100 * max(outage_s, 60):
            raise RuntimeError("the server takes less than the fleet makes")
    first, last = int(10 / STEP_S), int(down / STEP_S)
    span = (last - first) * STEP_S
    return Result(
        requests, documents, clock.now - up, sum(requests[first:last]) / span, sum(documents[first:last]) / span,
        int(up / STEP_S),
    )  # fmt: skip


def _produce(host: Host, now: float) -> None:
    """At each commit what was made since becomes shippable."""
    second = int(now + host.phase)
    if second >= host.committed + COMMIT_S:
        host.committed = second
        host.backlog += host.profile[(host.at + second) % len(host.profile)]


def _ship(host: Host, clock: Clock, alive: bool, queue: float, rate: float, batch: int) -> tuple[float, float]:
    """(requests sent, documents accepted) by one host in one step, by the rules of monitor/ship/shipper.py."""
    sent = accepted = 0.0
    trouble = host.trouble.trouble
    if host.trouble.waiting:
        knocks = trouble is not None and trouble.unreachable and clock.now - host.knocked >= shipper._KNOCK_S
        if not knocks:
            return 0.0, 0.0
        host.knocked, sent = clock.now, 1.0
        if not alive:
            return sent, 0.0
    room = 1 if trouble is not None else shipper.IN_FLIGHT
    while host.backlog >= 1 and len(host.flights) < room:
        sent += 1
        if not alive or queue + accepted > QUEUE_S * rate:
            host.trouble.fail(FULL if alive else DOWN)
            break
        host.trouble.over()
        count = min(host.backlog, float(batch))
        host.backlog -= count
        accepted += count
        host.flights.append(clock.now + OVERHEAD_S + (queue + accepted) / rate)
    return sent, accepted


def main() -> None:
    """One line for each outage."""
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--hosts", type=int, default=300)
    words.add_argument("--profile", choices=sorted(PROFILES), default="calm")
    words.add_argument("--capacity", type=float, default=2.0, help="of the server, over the fleet's mean")
    words.add_argument("--batch", type=int, default=500)
    given = words.parse_args()
    print("outage s | mean requests/s | peak after | ratio | mean documents/s | peak after | ratio | caught up after s")
    for outage in (10.0, 60.0, 600.0, 3600.0):
        found = simulate(given.hosts, given.profile, outage, given.capacity, given.batch)
        asked, taken = found.peak(found.requests), found.peak(found.documents)
        print(
            f"{outage:8.0f} | {found.mean_requests:15.1f} | {asked:10.1f} | {asked / found.mean_requests:5.2f} | "
            f"{found.mean_documents:16.0f} | {taken:10.0f} | {taken / found.mean_documents:5.2f} | {found.caught_up_s:.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
