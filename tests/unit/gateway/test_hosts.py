"""For which names the gateway answers, and for which pages."""

from __future__ import annotations

import httpx
import pytest

from controller.gateway.front import Front
from controller.gateway.http.access import Hosts
from controller.gateway.http.problems import Misdirected
from controller.gateway.settings import GatewaySettings
from tests.unit.gateway.small_farm import TOKEN, SmallFarm

OURS = ["localhost", "LOCALHOST:8600", "farm.localhost", "127.0.0.1:8600", "127.9.9.9", "[::1]:8600", "node-9.lan:80",
        "node-9.lan.", "10.0.0.5:8600"]  # fmt: skip
STRANGE = [
    "evil.example",
    "evil.example:8600",
    "localhost.evil.example",
    "10.0.0.6",
    "[2001:db8::1]",
    "",
    "node-9.lan.evil",
]


@pytest.mark.parametrize("host", OURS)
def test_names_of_ours_are_answered(host: str) -> None:
    hosts = Hosts(["10.0.0.5", "node-9.lan"])
    hosts.check(host.encode())
    hosts.check(host.encode())


@pytest.mark.parametrize("host", STRANGE)
def test_other_names_are_refused(host: str) -> None:
    with pytest.raises(Misdirected, match="not a name of this gateway"):
        Hosts(["10.0.0.5", "node-9.lan"]).check(host.encode())


def test_where_every_address_is_listened_on_every_address_is_ours_and_no_name() -> None:
    hosts = Hosts(["0.0.0.0"])
    hosts.check(b"10.0.0.6:8600")
    hosts.check(b"[2001:db8::1]:8600")
    with pytest.raises(Misdirected):
        hosts.check(b"evil.example")
    Hosts(["*"]).check(b"evil.example")


def test_the_machines_name_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "node-9.lan")
    settings = GatewaySettings(operator_token=TOKEN, public_host="farm.example", allowed_hosts=("proxy.example",))
    for host in (b"node-9", b"node-9.lan:8600", b"farm.example", b"proxy.example", b"127.0.0.1"):
        Hosts(settings.hosts).check(host)


@pytest.mark.parametrize("path", ["/healthz", "/v1/status", "/v1/nodes/join", "/metrics"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://farm:1"}, 403),
        ({"Origin": "http://farm"}, 0),
        ({}, 0),
    ],
)
async def test_border_refuses_strange_names_and_pages(
    small: SmallFarm, path: str, headers: dict[str, str], status: int
) -> None:
    for app in (small.app, Front(small.app.state.farm)) if status else (small.app,):
        transport = httpx.ASGITransport(app)
        token = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://farm", headers=token) as client:
            answer = await client.get(path, headers=headers)
        assert answer.status_code == status if status else answer.status_code not in (403, 421)
