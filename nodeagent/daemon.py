"""The node daemon: its parts, put together, and the order in which they start and stop."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import grpc

from agentfarm.errors import Conflict, InvalidRequest
from agentfarm.files import FileLock, Locked, write_private
from agentfarm.identity import Identity
from agentfarm.service import Service, first_of
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.outgoing import Outgoing
from nodeagent.core.session import Session
from nodeagent.link.answers import Answers
from nodeagent.link.calls import Calls
from nodeagent.link.renewal import Renewal
from nodeagent.link.storage import Storage
from nodeagent.link.stream import Link, Peer
from nodeagent.machine.logging import log
from nodeagent.machine.measure import LoadMeter, machine
from nodeagent.machine.programs import RuntimeFolder
from nodeagent.metrics import MetricsServer
from nodeagent.replicas.bundles import Bundles
from nodeagent.replicas.environments import Environments
from nodeagent.replicas.launcher import Launcher
from nodeagent.replicas.logs import replica_log
from nodeagent.replicas.relay import Relay
from nodeagent.replicas.supervisor import Supervisor
from nodeagent.replicas.zygotes import Zygotes
from nodeagent.services.registry import Services, node_services
from nodeagent.services.service import Place
from nodeagent.settings import NodeSettings

NODE_FILE: Final = "node.json"
JOINED_FILE: Final = "joined.json"
LAST_WORDS_S: Final = 2.0
"""How long a stopping daemon waits for the controller to acknowledge its last results."""


class Daemon(Service):
    """One node. `run` until `ask_to_stop` is called."""

    def __init__(self, settings: NodeSettings, version: str) -> None:
        super().__init__("node")
        self._version = version
        self._settings = settings
        self._folder = settings.data_dir
        self._stopping = asyncio.Event()
        self._lock = _lock(self._folder)
        self._identity_folder = self._folder / "identity"
        self.identity = Identity.load(self._identity_folder)
        self._address = settings.link or _joined_link(self._folder)
        self._meter = LoadMeter(self._folder)
        runtime = RuntimeFolder(self._folder / "runtime")
        runtime.prepare()
        wake = asyncio.Event()
        self.outgoing = Outgoing(wake.set)
        self.storage = Storage(self._folder / "outbox.db")
        self.calls = Calls()
        self.relay = Relay(self.calls)
        self.answers = Answers(self.calls, self.outgoing)
        place = Place(self._folder, runtime, settings.stop_replicas_on_exit, self._services_changed)
        self.services = Services(node_services(settings, place))
        zygotes = Zygotes(self._folder / "zygotes", runtime, self._exited, release=version)
        launcher = Launcher(
            self.identity.name,
            bundles=Bundles(self._folder / "bundles", runtime, self.calls.fetch_bundle),
            environments=Environments(self._folder / "environments", runtime),
            zygotes=zygotes,
            services=self.services,
            variables=_agent_variables(settings),
        )
        self.supervisor = Supervisor(
            self._folder / "replicas",
            launcher=launcher,
            zygotes=zygotes,
            outgoing=self.outgoing,
            storage=self.storage,
            relay=self.relay,
        )
        self.workload = self.supervisor.workload
        self.outbox = self.workload.outbox
        peer = Peer(self._address, self._credentials, settings.link_name or "")
        self.session = Session(
            asyncio.get_running_loop(), self.supervisor.roster, self.outgoing, self.services, self,
            epoch=secrets.randbits(63) | 1,
        )  # fmt: skip
        self.link = Link(peer, self.session, self.outgoing, wake, self.calls)
        self.renewal = Renewal(self._identity_folder, self.identity, self.calls, runtime)
        self.metrics = MetricsServer(self)
        self.own(self.supervisor)
        self.own(self.services)

    async def run(self) -> None:
        """Serve until asked to stop; then stop in order. Raises what killed a part."""
        try:
            await self.start()
            ended = await first_of(self._stopping.wait(), self.wait())
            ended.result()
        finally:
            await self.stop()

    async def _begin(self) -> None:
        await self.storage.start(self.outbox)
        await self.supervisor.start()
        await self.services.start()
        await self.metrics.start(self._settings.metrics_host, self._settings.metrics_port)
        self._tell_where()
        log.info("node.started", node=self.identity.name, pid=os.getpid(), controller=self._address,
                 metrics_port=self.metrics.port)  # fmt: skip
        self.run_task(self.link.run(), name="link")
        self.run_task(self.renewal.run(), name="renewal")

    def ask_to_stop(self) -> None:
        """End `run`; asked again, end at once."""
        if self._stopping.is_set():
            log.info("node.hurried")
            if self._settings.stop_replicas_on_exit:
                self.supervisor.hurry()
        self._stopping.set()

    async def _finish(self) -> None:
        """Attempts end first, while their results can still be sent; the stream, which proves us alive, ends last."""
        log.info("node.stopping", stop_replicas=self._settings.stop_replicas_on_exit)
        await self.supervisor.stop(with_replicas=self._settings.stop_replicas_on_exit)
        await self.services.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                if self.link.is_connected:
                    emptied = asyncio.Event()
                    self.outbox.when_empty(emptied.set)
                    await emptied.wait()
        await self.relay.stop()
        await self.answers.stop()
        await self._tasks.end()
        await self.storage.stop(self.outbox)
        await self.metrics.stop()
        (self._folder / NODE_FILE).unlink(missing_ok=True)
        self._lock.release()
        log.info("node.stopped")

    # -------------------------------------------------------------- what the session needs of us: see `Host`

    def introduction(self) -> wire.Hello:
        settings, here = self._settings, machine()
        memory = settings.memory_mib or max(0, here.memory_mib - settings.reserve_memory_mib)
        return wire.Hello(
            daemon_version=self._version,
            capacity=wire.Capacity(
                cpu_millicores=settings.cpu_millicores or here.cpu_millicores, memory_mib=memory, gpus=settings.gpus
            ),
            labels=self._settings.labels,
            capabilities=sorted({*settings.capabilities, *self.services.capabilities}),
            measured=self.measured(),
            metrics_address=self._metrics_address(),
        )

    def _metrics_address(self) -> str:
        """By which Prometheus finds this node; empty where we tell no numbers."""
        if self.metrics.port <= 0:
            return ""
        host = self._settings.metrics_host
        reachable = socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
        return f"{reachable}:{self.metrics.port}"

    def measured(self) -> wire.Measured:
        load = self._meter.measure()
        return wire.Measured(
            memory_available_mib=load.memory_available_mib,
            cpu_used_millicores=load.cpu_used_millicores,
            disk_free_mib=load.disk_free_mib,
        )

    def asked(self, kind: str, message: wire.ControllerMessage) -> None:
        if kind == "log_request":
            self._send_log(message.log_request)
        elif kind == "service_request":
            request = message.service_request
            self.answers.begin(request.request_id, self.services.answer(request.name, request.payload))
        elif kind == "log_stop":
            self.answers.end(message.log_stop.request_id)

    def exclusive_stopped(self, attempts: int) -> None:
        log.warning("attempts.stopped_exclusive", attempts=attempts, why="the controller was not heard in time")

    # -------------------------------------------------------------- small connections between parts

    def _exited(self, replica_id: int, pid: int, status: int) -> None:
        self.supervisor.exited(replica_id, pid, status)

    def _send_log(self, request: wire.LogRequest) -> None:
        is_here = request.replica_id in self.supervisor.seats
        path = self.supervisor.log_path(request.replica_id) if is_here else None
        self.answers.begin(request.request_id, replica_log(path, request.tail_lines, follow=request.follow))

    def _services_changed(self) -> None:
        self.link.reintroduce()

    def _credentials(self) -> grpc.ChannelCredentials:
        identity = self.renewal.identity
        return grpc.ssl_channel_credentials(identity.ca_pem, identity.key_pem, identity.certificate_pem)

    def _tell_where(self) -> None:
        """For the program that started us, and for `farmctl dev`."""
        about: dict[str, Any] = {
            "name": self.identity.name, "pid": os.getpid(), "metrics_port": self.metrics.port, "link": self._address,
        }  # fmt: skip
        write_private(self._folder / NODE_FILE, json.dumps(about).encode())


def _lock(folder: Path) -> FileLock:
    """One daemon a folder. Raises Conflict when there is one already."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(folder / "lock")
    except Locked as locked:
        raise Conflict(
            f"A node daemon (process {locked.holder}) already serves {folder}.",
            remedy="Stop it first, or use another --data-dir.",
        ) from None


def _joined_link(folder: Path) -> str:
    """The link's address, as the invitation says it."""
    try:
        return str(json.loads((folder / JOINED_FILE).read_text())["link"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InvalidRequest(
            f"Nothing says where the controller is: no `link` in the settings, and no {folder / JOINED_FILE}.",
            remedy="Set link: host:port, or join again.",
        ) from None


def _agent_variables(settings: NodeSettings) -> dict[str, str]:
    variables = dict(settings.agent_environment)
    llm = settings.llm
    if llm.url:
        variables["AGENTFARM_LLM_URL"] = llm.url
        variables["AGENTFARM_LLM_ROLES"] = json.dumps(llm.roles)
        if llm.key_file is not None:
            variables["AGENTFARM_LLM_KEY_FILE"] = str(llm.key_file)
    return variables
