"""Ports: a wanted one or a clear no; without a wish the next that is free."""

from __future__ import annotations

import socket

import pytest

from agentfarm.errors import Conflict
from farmctl.dev.processes import ports


def test_wanted_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        with pytest.raises(Conflict, match=f"Port {taken} is taken"):
            ports.choose_port(taken)


def test_without_a_wish_the_next_free_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        monkeypatch.setattr(ports, "DEFAULT_PORT", taken)
        assert taken < ports.choose_port(None) < taken + ports.TRIED_MAX


def test_remembered_port_is_kept_while_it_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        assert ports.remembered_port(port) != port
    assert ports.remembered_port(port) == port
    assert ports.remembered_port(None) > 0
