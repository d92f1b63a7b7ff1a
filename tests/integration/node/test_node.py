"""The daemon itself: its weight, its metrics, its certificate, how it joins, and peers of other releases."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from agentfarm.identity import Identity, Invite, join_answer, new_secret
from agentfarm.wire import link_pb2 as wire
from nodeagent.machine.measure import process_use
from tests.integration.node.certificates import Authority
from tests.integration.node.conftest import Node
from tests.integration.node.controller import ScriptedController, task, wanted
from tests.integration.node.waiting import until

ECHO = "async def main(input):\n    return input\n"
RESIDENT_MIB_MAX = 50.0
HEAVY = {
    "langchain_core", "langgraph", "numpy", "questdb", "sqlalchemy", "fastapi", "pydantic", "structlog", "rich", "yaml",
    "cryptography", "httpx", "psycopg2",
}  # fmt: skip


def metrics_of(node: Node) -> str:
    port = json.loads((node.data / "node.json").read_text())["metrics_port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def test_the_daemon_imports_nothing_heavy() -> None:
    code = "import json, sys, nodeagent.daemon, nodeagent.start; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not HEAVY & {name.partition(".")[0] for name in json.loads(found.stdout)}


async def test_an_idle_daemon_is_small(node: Node, controller: ScriptedController) -> None:
    await node.start()
    await controller.until(lambda: controller.beats >= 5)
    assert node.process is not None
    use = process_use(node.process.pid)
    assert use is not None
    assert use.resident_mib <= RESIDENT_MIB_MAX


async def test_metrics_name_deployments_and_never_tasks(node: Node, controller: ScriptedController) -> None:
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=ECHO)))
    await controller.until_running(1)
    await controller.assign(task(424_242, 1, 1))
    await controller.result_of(424_242)
    said = await asyncio.to_thread(metrics_of, node)
    assert 'agentfarm_node_replicas{deployment="agent",state="running"} 1.0' in said
    assert 'agentfarm_node_attempts_ended_total{outcome="succeeded"} 1.0' in said
    assert "agentfarm_node_connected 1.0" in said
    assert "424242" not in said


async def test_a_metrics_port_that_is_taken_costs_the_metrics_and_not_the_node(
    node: Node, controller: ScriptedController
) -> None:
    await node.start(metrics_port=controller.port)
    assert "metrics.not_served" in node.log


async def test_a_broken_stream_is_made_anew_and_everything_told_again(
    node: Node, controller: ScriptedController
) -> None:
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=ECHO)))
    await controller.until_running(1)
    controller.acknowledges = False
    await controller.assign(task(1, 1, 1))
    await controller.result_of(1)
    controller.results.clear()
    controller.break_stream()
    await controller.until(lambda: len(controller.hellos) == 2)
    again = controller.hellos[1]
    assert again.daemon_epoch == controller.hellos[0].daemon_epoch
    assert [status.replica_id for status in again.replicas] == [1]
    assert list(again.finished_tokens) == [1]
    await controller.result_of(1)


async def test_a_controller_that_was_away_is_found_again(node: Node, controller: ScriptedController) -> None:
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=ECHO)))
    await controller.until_running(1)
    await controller.stop()
    await until(lambda: "link.lost" in node.log)
    await controller.start()
    await controller.until(lambda: len(controller.hellos) == 2)
    await controller.assign(task(1, 1, 1))
    await controller.result_of(1)


async def test_a_stream_on_which_nobody_answers_is_given_up(node: Node, controller: ScriptedController) -> None:
    await node.start()
    controller.answers_beats = False
    await controller.until(lambda: len(controller.hellos) >= 2)


async def test_a_node_that_is_not_answered_is_not_heard_either(node: Node, controller: ScriptedController) -> None:
    await node.start()
    await controller.until(lambda: controller.beats >= 1)
    controller.answers_beats = False
    before = controller.beats
    await controller.until(lambda: len(controller.hellos) >= 2)  # five intervals later
    assert controller.beats - before <= 2  # the one that waits, and perhaps one on the new stream


async def test_messages_of_a_newer_controller_are_left_alone(node: Node, controller: ScriptedController) -> None:
    await node.start()
    unknown = wire.ControllerMessage.FromString(bytes([0xAA, 0x06, 0x02, 0x08, 0x01]))  # field 101: a message
    assert unknown.WhichOneof("body") is None
    await controller.send()
    assert controller._stream is not None
    controller._stream.put_nowait(unknown)
    await controller.desire(wanted(1, controller.bundle(agent=ECHO)))
    await controller.until_running(1)
    assert len(controller.hellos) == 1


async def test_an_older_list_of_replicas_changes_nothing(node: Node, controller: ScriptedController) -> None:
    await node.start()
    item = wanted(1, controller.bundle(agent=ECHO))
    await controller.desire(item)
    await controller.desire(item)
    await controller.until_running(1)
    await controller.send(desired=wire.Desired(generation=1))
    await controller.assign(task(1, 1, "still here"))
    assert (await controller.result_of(1)).outcome == wire.OUTCOME_SUCCEEDED


async def test_the_certificate_is_renewed_at_half_of_its_life(node: Node, controller: ScriptedController) -> None:
    folder = node.data / "identity"
    controller.authority.enrol("node-1", folder, age_s=600, life_s=1_000)
    before = Identity.load(folder)
    await node.start()
    await until(lambda: "certificate.renewed" in node.log or "certificate.not_renewed" in node.log)
    after = Identity.load(folder)
    assert after.not_after > before.not_after, node.log
    assert (after.name, after.key_pem) == (before.name, before.key_pem)
    controller.break_stream()
    await controller.until(lambda: len(controller.hellos) == 2)  # the new one is good for a new stream


# ------------------------------------------------------------------ joining


class Gateway:
    """As much of a gateway as a joining machine needs."""

    def __init__(self, authority: Authority, *, impostor: Authority | None = None) -> None:
        self.authority = authority
        self.secret = new_secret()
        self.answers_with = impostor or authority
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, said = gateway.answer(asked)
                body = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        self.used = False
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, asked: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if self.used:
            return 403, {"title": "Forbidden", "detail": "The invitation was used already.", "remedy": "Make another."}
        self.used = True
        certificate = self.answers_with.sign_csr(asked["csr_pem"].encode())
        answer = join_answer(self.secret, certificate, self.answers_with.pem)
        return 200, {"certificate_pem": answer.certificate_pem, "ca_pem": answer.ca_pem, "proof": answer.proof}

    def token(self, name: str = "node-9", *, expires_in_s: float = 900) -> str:
        der = x509.load_pem_x509_certificate(self.authority.pem).public_bytes(serialization.Encoding.DER)
        port = self.server.server_address[1]
        return Invite(
            name, self.secret, hashlib.sha256(der).hexdigest(), f"http://127.0.0.1:{port}", "127.0.0.1:1",
            time.time() + expires_in_s,
        ).encode()  # fmt: skip


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    one = Gateway(Authority.make())
    yield one
    one.server.shutdown()
    one.server.server_close()


def join(token: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nodeagent.main", "join", token, "--data-dir", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_joining_gives_a_name_and_an_address(gateway: Gateway, tmp_path: Path) -> None:
    done = join(gateway.token(), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "node-9" in done.stdout
    assert Identity.load(tmp_path / "identity").name == "node-9"
    assert json.loads((tmp_path / "joined.json").read_text())["link"] == "127.0.0.1:1"
    again = join(gateway.token(), tmp_path)
    assert again.returncode == 5
    assert "already" in again.stderr


def test_tokens_that_are_used_expired_or_no_tokens_are_refused_with_a_remedy(gateway: Gateway, tmp_path: Path) -> None:
    token = gateway.token()
    assert join(token, tmp_path / "first").returncode == 0
    used = join(token, tmp_path / "second")
    assert (used.returncode, "used already" in used.stderr, "Make another" in used.stderr) == (5, True, True)
    assert "expired" in join(gateway.token(expires_in_s=-1), tmp_path / "third").stderr
    assert "not a whole invitation" in join("nonsense", tmp_path / "fourth").stderr
    assert not (tmp_path / "second" / "identity").exists()


def test_a_gateway_with_another_authority_is_an_impostor(tmp_path: Path) -> None:
    one = Gateway(Authority.make(), impostor=Authority.make())
    done = join(one.token(), tmp_path)
    one.server.shutdown()
    one.server.server_close()
    assert done.returncode == 5
    assert "another certificate authority" in done.stderr


def test_a_machine_that_never_joined_says_how(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nodeagent.main", "run", "--data-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 5
    assert "farmctl node invite" in done.stderr


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    config = tmp_path / "node.yaml"
    config.write_text(f"data_dir: {tmp_path}\nmetrics_prot: 1\nlog_format: xml\n")
    command = [sys.executable, "-m", "nodeagent.main", "run", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 5
    assert "metrics_port" in done.stderr
