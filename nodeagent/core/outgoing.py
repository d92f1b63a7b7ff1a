"""What waits to be sent to the controller, gathered between writes: many facts, few messages. Pure.

Bounded: pieces of output are dropped, oldest first, and counted, when the stream is slow. Results are never dropped;
their number is bounded by the attempts the node was given. Nothing here needs to survive a broken stream: Hello and the
outbox send everything again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from agentfarm.wire import link_pb2 as wire

OUTPUT_BYTES_MAX: Final = 4 * 2**20
RESULTS_PER_MESSAGE: Final = 1_000
RESULT_BYTES_PER_MESSAGE: Final = 2**20
TOKENS_PER_MESSAGE: Final = 10_000


class Outgoing:
    """Filled by the workload and the seats, drained by the link's writer. `wake` is called when something waits."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self.outputs_dropped = 0
        self.drained_results = 0
        """In the last drain."""
        self._is_open = False
        self._beat: wire.Beat | None = None
        self._reports: dict[int, wire.ReplicaStatus] = {}
        self._started: list[int] = []
        self._outputs: deque[wire.AttemptOutput] = deque()
        self._output_bytes = 0
        self._results: list[wire.AttemptResult] = []
        self._log_ends: list[wire.LogEnd] = []

    def open(self, results: Iterable[wire.AttemptResult]) -> None:
        """A new stream, whose Hello has the rest: begin with the results that wait for acknowledgement."""
        self.close()
        self._is_open = True
        self._results.extend(results)
        if self._results:
            self._wake()

    def close(self) -> None:
        """No stream: facts are dropped until the next one."""
        self._is_open = False
        self._beat = None
        self._reports.clear()
        self._started.clear()
        self._outputs.clear()
        self._output_bytes = 0
        self._results.clear()
        self._log_ends.clear()

    def beat(self, beat: wire.Beat) -> None:
        self._beat = beat
        self._wake()

    def report(self, status: wire.ReplicaStatus) -> None:
        """The newest state of a replica; one that was not sent yet is replaced."""
        if self._is_open:
            self._reports.pop(status.replica_id, None)
            self._reports[status.replica_id] = status
            self._wake()

    def started(self, tokens: Iterable[int]) -> None:
        if self._is_open:
            self._started.extend(tokens)
            self._wake()

    def output(self, piece: wire.AttemptOutput) -> None:
        if not self._is_open:
            return
        self._outputs.append(piece)
        self._output_bytes += len(piece.data)
        while self._output_bytes > OUTPUT_BYTES_MAX:
            self._output_bytes -= len(self._outputs.popleft().data)
            self.outputs_dropped += 1
        self._wake()

    def results(self, results: Iterable[wire.AttemptResult]) -> None:
        if self._is_open:
            self._results.extend(results)
            self._wake()

    def log_end(self, end: wire.LogEnd) -> None:
        if self._is_open:
            self._log_ends.append(end)
            self._wake()

    def drain(self) -> Iterator[wire.NodeMessage]:
        """Everything that waits, as messages, in an order in which it can be understood: the sign of life first, a
        replica's state before the results that follow from it, a task's output before its end."""
        # All of it is taken before any of it is written: what comes while we write waits for the next drain, or a
        # result would overtake output that came before it.
        beat, self._beat = self._beat, None
        reports, self._reports = self._reports, {}
        started, self._started = self._started, []
        outputs, self._outputs, self._output_bytes = self._outputs, deque(), 0
        results, self._results = self._results, []
        ends, self._log_ends = self._log_ends, []
        self.drained_results = len(results)
        if beat is not None:
            yield wire.NodeMessage(beat=beat)
        if reports:
            yield wire.NodeMessage(replica_report=wire.ReplicaReport(replicas=reports.values()))
        for at in range(0, len(started), TOKENS_PER_MESSAGE):
            tokens = started[at : at + TOKENS_PER_MESSAGE]
            yield wire.NodeMessage(attempts_started=wire.AttemptsStarted(tokens=tokens))
        for piece in outputs:
            yield wire.NodeMessage(attempt_output=piece)
        for batch in batches(results):
            yield wire.NodeMessage(attempt_results=wire.AttemptResults(results=batch))
        for end in ends:
            yield wire.NodeMessage(log_end=end)


def batches(results: list[wire.AttemptResult]) -> Iterator[list[wire.AttemptResult]]:
    """Results in messages that stay well below what a message may hold."""
    batch: list[wire.AttemptResult] = []
    size = 0
    for result in results:
        weight = len(result.output) + len(result.error_traceback) + len(result.error_message)
        if batch and (len(batch) >= RESULTS_PER_MESSAGE or size + weight > RESULT_BYTES_PER_MESSAGE):
            yield batch
            batch, size = [], 0
        batch.append(result)
        size += weight
    if batch:
        yield batch
