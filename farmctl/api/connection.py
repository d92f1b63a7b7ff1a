"""Which farm is meant: options, then variables, then the farm that `farmctl dev` runs in this folder or above it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agentfarm.errors import Forbidden, Unavailable

DEV_FILE: Final = Path(".farm/dev.json")
SERVER_VARIABLE: Final = "AGENTFARM_SERVER"
TOKEN_VARIABLE: Final = "AGENTFARM_TOKEN_FILE"  # noqa: S105 - the name of a variable


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the gateway is and the token it takes."""

    server: str
    token: str
    source: str
    """Where it comes from, for messages."""


def find_connection(
    server: str | None, token_file: Path | None, *, env: Mapping[str, str] | None = None, folder: Path | None = None
) -> Connection:
    """The farm that is meant. Raises Unavailable when none is known, Forbidden when its token cannot be read."""
    env = os.environ if env is None else env
    dev = _nearest_dev(Path.cwd() if folder is None else folder)
    url = server or env.get(SERVER_VARIABLE) or dev.get("server")
    if not url:
        raise Unavailable(
            "No farm is known here.",
            remedy=f"Start one with 'farmctl dev', or name one with --server URL or {SERVER_VARIABLE}.",
        )
    source = "--server" if server else SERVER_VARIABLE if env.get(SERVER_VARIABLE) else str(dev.get("file"))
    path = token_file or (Path(env[TOKEN_VARIABLE]) if env.get(TOKEN_VARIABLE) else None)
    if path is None and dev.get("token_file"):
        path = Path(str(dev["token_file"]))
    if path is None:
        raise Forbidden(
            f"There is no token for {url}.",
            remedy=f"Name its file with --token-file or {TOKEN_VARIABLE}; it is operator.token in the controller's "
            "data folder.",
        )
    return Connection(_whole_url(url), _read_token(path), source)


def _nearest_dev(folder: Path) -> dict[str, Any]:
    for place in (folder, *folder.parents):
        path = place / DEV_FILE
        try:
            announcement = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return {**announcement, "file": path} if isinstance(announcement, dict) else {}
    return {}


def _read_token(path: Path) -> str:
    try:
        token = path.expanduser().read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Forbidden(
            f"The token file {path} cannot be read: {error.strerror}.", remedy="Name another with --token-file."
        ) from error
    if not token or not token.isascii() or not token.isprintable():
        raise Forbidden(f"The token file {path} holds no token.", remedy="Name another with --token-file.")
    return token


def _whole_url(url: str) -> str:
    return (url if "://" in url else f"http://{url}").rstrip("/")
