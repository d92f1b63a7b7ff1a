"""For which names the gateway answers. Without this, a page in a browser could speak to it under a name of its own.

The Host header shows a page that points its name at this machine (DNS rebinding), the Origin header one that calls us
across origins (RFC 6454). Programs send no Origin.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from agentfarm.errors import Forbidden
from controller.gateway.http.problems import Misdirected

ANY: Final = "*"
_ACCEPTED_MAX: Final = 64
_WILDCARDS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - to be compared with, not to listen on


class Hosts:
    """names: host names and addresses without ports; loopback is always one. `*`: every name.

    Where the gateway listens on every address of the machine (`0.0.0.0`, `::`), every address is one: no page has an
    address of ours for its name.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name.lower().rstrip(".") for name in names)
        self._takes_addresses = bool(self._names & _WILDCARDS)
        self._accepted: set[bytes] = set()
        """Headers that were looked at before."""

    def check(self, host: bytes) -> None:
        """A Host header. Raises Misdirected for a name that is not ours."""
        if host in self._accepted:
            return
        name = _name_of(host.decode("latin-1"))
        if not self._is_ours(name):
            raise Misdirected(
                f"{name[:200]!r} is not a name of this gateway.",
                remedy="Use its address, or add the name to allowed_hosts in the controller's settings.",
            )
        if len(self._accepted) < _ACCEPTED_MAX:
            self._accepted.add(host)

    def _is_ours(self, name: str) -> bool:
        if name in self._names or ANY in self._names or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self._takes_addresses


def check_origin(origin: bytes, host: bytes) -> None:
    """An Origin header. Raises Forbidden for another origin than that which the Host header names."""
    if origin.partition(b"://")[2].lower() != host.lower():
        raise Forbidden(
            f"Pages of {origin.decode('latin-1')[:200]!r} may not call this gateway.",
            remedy="Call it from a program, or serve the page under the gateway's own name.",
        )


def _name_of(host: str) -> str:
    """Without port, and without the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")
