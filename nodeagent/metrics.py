"""`/metrics` and `/healthz` on loopback.

Numbers are read when somebody asks, by one collector: counting costs an attempt nothing. Labels are names of
deployments and constant words, never ids. The server is a few lines of asyncio, so that scraping needs no thread.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from agentfarm.wire import link_pb2 as wire
from nodeagent.machine.logging import log
from nodeagent.machine.measure import process_use

if TYPE_CHECKING:
    from nodeagent.core.outbox import Outbox
    from nodeagent.core.outgoing import Outgoing
    from nodeagent.core.session import Session
    from nodeagent.link.storage import Storage
    from nodeagent.link.stream import Link
    from nodeagent.replicas.supervisor import Supervisor
    from nodeagent.services.registry import Services

REQUEST_TIMEOUT_S: Final = 5.0
REQUEST_BYTES_MAX: Final = 16 * 1024


class Numbers(Protocol):
    """The parts of the daemon whose numbers are served. The daemon owns the server, so it is known by this alone."""

    @property
    def link(self) -> Link: ...
    @property
    def session(self) -> Session: ...
    @property
    def supervisor(self) -> Supervisor: ...
    @property
    def outgoing(self) -> Outgoing: ...
    @property
    def outbox(self) -> Outbox: ...
    @property
    def storage(self) -> Storage: ...
    @property
    def services(self) -> Services: ...
    def measured(self) -> wire.Measured: ...


class MetricsServer:
    """Serves the daemon's numbers."""

    def __init__(self, daemon: Numbers) -> None:
        self.port = -1
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(NodeCollector(daemon))
        self._daemon = daemon
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 is any, -1 none. A port that is taken costs the metrics, not the node."""
        if port < 0:
            return
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=REQUEST_BYTES_MAX)
        except OSError as problem:
            log.error("metrics.not_served", host=host, port=port, problem=str(problem),
                      remedy="choose another metrics_port")  # fmt: skip
            return
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Safe twice, and unstarted."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head.split(b" ", 2)[1].split(b"?")[0] if head.count(b" ") >= 2 else b""))
                await writer.drain()
        writer.close()

    def _answer(self, path: bytes) -> bytes:
        if path == b"/metrics":
            return _response("200 OK", generate_latest(self._registry), CONTENT_TYPE_LATEST)
        if path == b"/healthz":
            connected = self._daemon.link.is_connected
            body = b"connected\n" if connected else f"{self._daemon.link.problem}\n".encode()
            return _response("200 OK" if connected else "503 Service Unavailable", body, "text/plain")
        return _response("404 Not Found", b"There are /metrics and /healthz.\n", "text/plain")


class NodeCollector:
    """The daemon's state as metric families."""

    def __init__(self, daemon: Numbers) -> None:
        self._daemon = daemon

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at each scrape."""
        yield from self._node()
        yield from self._replicas()
        yield from self._attempts()
        yield from self._outbox()
        yield from self._daemon.services.metrics()

    def _node(self) -> Iterator[Metric]:
        daemon = self._daemon
        measured = daemon.measured()
        yield gauge(
            "agentfarm_node_connected", "Whether the stream to the controller stands.", daemon.link.is_connected
        )
        yield counter("agentfarm_node_streams", "Streams made since the daemon started.", daemon.session.streams_total)
        yield gauge("agentfarm_node_beat_round_trip_seconds", "Of the last heartbeat.", daemon.session.round_trip_s)
        yield gauge(
            "agentfarm_node_memory_available_bytes", "As the kernel says.", measured.memory_available_mib * 2**20
        )
        yield gauge("agentfarm_node_cpu_used_cores", "Mean since the last beat.", measured.cpu_used_millicores / 1000)
        yield gauge("agentfarm_node_disk_free_bytes", "In the data folder.", measured.disk_free_mib * 2**20)
        if (use := process_use(os.getpid())) is not None:
            yield gauge("agentfarm_node_daemon_resident_bytes", "Of the daemon.", use.resident_mib * 2**20)
            yield counter("agentfarm_node_daemon_cpu_seconds", "Of the daemon.", use.cpu_s)

    def _replicas(self) -> Iterator[Metric]:
        states: Counter[tuple[str, str]] = Counter()
        restarts: Counter[str] = Counter()
        private: Counter[str] = Counter()
        for seat in self._daemon.supervisor.seats.values():
            state = wire.ReplicaState.Name(seat.status.state).removeprefix("REPLICA_STATE_").lower()
            name = seat.desired.deployment
            states[name, state] += 1
            restarts[name] += seat.status.restarts
            private[name] += seat.status.private_mib * 2**20
        by_state = GaugeMetricFamily("agentfarm_node_replicas", "Replicas here.", labels=("deployment", "state"))
        for (name, state), count in states.items():
            by_state.add_metric((name, state), count)
        crashed = CounterMetricFamily("agentfarm_node_replica_restarts", "Crashes.", labels=("deployment",))
        memory = GaugeMetricFamily("agentfarm_node_replica_private_bytes", "Not shared.", labels=("deployment",))
        for name, count in restarts.items():
            crashed.add_metric((name,), count)
            memory.add_metric((name,), private[name])
        yield from (by_state, crashed, memory)

    def _attempts(self) -> Iterator[Metric]:
        workload = self._daemon.supervisor.workload
        counts = workload.counts
        yield gauge("agentfarm_node_attempts_in_hand", "Given to this node and not ended.", len(workload.attempts))
        yield gauge("agentfarm_node_attempts_running", "Being worked on.", workload.attempts.running_count)
        yield counter("agentfarm_node_attempts_taken", "Handed to replicas.", counts.attempts_taken)
        ended = CounterMetricFamily("agentfarm_node_attempts_ended", "By outcome.", labels=("outcome",))
        for outcome in ("succeeded", "failed", "timed_out", "cancelled", "interrupted"):
            ended.add_metric((outcome,), getattr(counts, outcome))
        yield ended
        yield counter(
            "agentfarm_node_outputs_dropped", "Pieces a slow stream lost.", self._daemon.outgoing.outputs_dropped
        )

    def _outbox(self) -> Iterator[Metric]:
        outbox, storage = self._daemon.outbox, self._daemon.storage
        yield gauge("agentfarm_node_outbox_results", "Waiting for acknowledgement.", len(outbox))
        yield gauge(
            "agentfarm_node_outbox_failing", "Whether results cannot be written to disk.", bool(storage.problem)
        )
        yield counter("agentfarm_node_outbox_stored", "Results written to disk.", outbox.stored_total)
        yield counter("agentfarm_node_outbox_acknowledged", "By the controller.", outbox.acknowledged_total)


def gauge(name: str, text: str, value: float) -> Metric:
    """One number that rises and falls."""
    return GaugeMetricFamily(name, text, value=float(value))


def counter(name: str, text: str, value: float) -> Metric:
    """One number that grows."""
    return CounterMetricFamily(name, text, value=float(value))


def _response(status: str, body: bytes, content_type: str) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
