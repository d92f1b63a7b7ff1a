"""What a replica does with a frame of the daemon's, and what it says of itself to a daemon that connects. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from nodeagent.runner.protocol import frames
from nodeagent.runner.protocol.frames import Kind, Run
from nodeagent.runner.replica.lease import ReplicaLease
from nodeagent.runner.replica.ledger import Ledger

RESULTS_PER_FRAME: Final = 256


class Orders(Protocol):
    """The runtime's side. Called on the control thread; must hand over to the loop and return."""

    def run(self, runs: list[Run]) -> None: ...
    def cancel(self, tokens: Sequence[int]) -> None: ...
    def stop(self) -> None: ...
    def probe(self) -> None:
        """Have the loop call `Control.loop_turned` on its next turn."""

    def answer(self, body: bytes) -> None: ...
    def connected(self) -> None: ...


def obey(
    kind: int, body: bytes, ledger: Ledger, lease: ReplicaLease, orders: Orders, send: Callable[[bytes], None]
) -> None:
    """Obey one frame. Kinds that are not known are left alone."""
    if kind == Kind.RUN:
        fresh = ledger.take(frames.read_runs(body))
        if fresh:
            orders.run(fresh)
    elif kind == Kind.KEPT:
        ledger.forget(frames.read_tokens(body))
    elif kind == Kind.LEASE:
        lease.renewed(frames.read_lease(body))
    elif kind == Kind.CANCEL:
        orders.cancel(frames.read_tokens(body))
    elif kind == Kind.RECALL:  # answered here: the loop may be blocked by what keeps the others waiting
        given = ledger.give_back(frames.read_tokens(body))
        if given:
            send(frames.frame_results(given))
    elif kind == Kind.AGENT_ANSWER:
        orders.answer(body)
    elif kind == Kind.STOP:
        orders.stop()


def announcement(ledger: Ledger, about: Mapping[str, object]) -> Iterator[bytes]:
    """HELLO: who we are, what is in hand; then every result not kept yet. Doubles are the daemon's to ignore."""
    held, ended = ledger.snapshot()
    running, _ = ledger.counts
    yield frames.frame_json(Kind.HELLO, {**about, "held": held, "running": running})
    for at in range(0, len(ended), RESULTS_PER_FRAME):
        yield frames.frame_results(ended[at : at + RESULTS_PER_FRAME])
