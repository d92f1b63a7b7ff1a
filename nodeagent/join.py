"""Making this machine a node: its key, a certificate for exactly the invited name, and where the controller is."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

import httpx

from agentfarm.errors import Conflict, FarmError, Forbidden, Unavailable
from agentfarm.files import write_private
from agentfarm.identity import Identity, Invite, JoinAnswer, join_request, verify_join_answer
from nodeagent.daemon import JOINED_FILE

TIMEOUT_S: Final = 15.0


def join(token: str, folder: Path) -> str:
    """Join with an invitation; returns the node's name.

    Raises InvalidRequest for what is no token, Forbidden for one that expired, was used or is not this farm's,
    Conflict when this machine has joined already, Unavailable when the controller cannot be reached.
    """
    invite = Invite.decode(token.strip(), time.time())
    identity_folder = folder / "identity"
    if (identity_folder / "certificate.pem").exists():
        raise Conflict(
            f"This machine is node {Identity.load(identity_folder).name} already.",
            remedy=f"To join it again, move {identity_folder} away first.",
        )
    request, key_pem = join_request(invite)
    answer = _ask(f"{invite.gateway.rstrip('/')}/v1/nodes/join", asdict(request))
    identity = verify_join_answer(invite, key_pem, answer)
    identity.save(identity_folder)
    write_private(folder / JOINED_FILE, json.dumps({"link": invite.link, "gateway": invite.gateway}).encode())
    return identity.name


def _ask(url: str, body: dict[str, str]) -> JoinAnswer:
    try:
        response = httpx.post(url, json=body, timeout=TIMEOUT_S)
        answer = response.json()
    except (httpx.HTTPError, ValueError) as problem:
        raise Unavailable(
            f"The controller at {url} cannot be reached: {problem}",
            remedy="Check that it runs, and that this machine can reach that address.",
        ) from problem
    if response.status_code >= 400:
        detail = str(answer.get("detail") or answer.get("title") or "It gave no reason.")
        kind = Forbidden if response.status_code in (401, 403, 409, 410) else FarmError
        raise kind(f"The controller refused: {detail}", remedy=str(answer.get("remedy", "")))
    try:
        return JoinAnswer(answer["certificate_pem"], answer["ca_pem"], answer["proof"])
    except (KeyError, TypeError) as problem:
        raise FarmError(f"What answered at {url} is no controller.") from problem
