"""What every family of REST addresses shares: a question, an answer, and what makes a question bad. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

Query = dict[str, str]


@dataclass(frozen=True, slots=True)
class RestAnswer:
    """What to send back."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)
    is_snapshot: bool = False
    """A whole book: what the fault `close_in_snapshot` cuts where books come over REST."""

    def encode(self) -> bytes:
        """The body as JSON."""
        return json.dumps(self.body, separators=(",", ":")).encode()


class BadQuestion(Exception):
    """A question that cannot be answered. `code` is the venue's own number, where it has any."""

    def __init__(self, status: int, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def read_target(target: str) -> tuple[str, Query]:
    """Path and parameters of `GET target`; of a parameter given twice, the last."""
    parts = urlsplit(target)
    return parts.path, {name: values[-1] for name, values in parse_qs(parts.query).items()}
