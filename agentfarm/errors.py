"""What can go wrong, split by who must act. Both sides of the farm and the command line share this tree.

    FarmError
    ├── InvalidRequest     the caller asked wrongly: change the request
    │   └── NotFound       ... by naming something that is not there
    ├── Forbidden          the caller may not do this: other credentials
    ├── Conflict           the world moved or is in another state: look again, then decide
    │   └── StaleToken     a lease was lost: stop that work
    ├── CannotPlace        nothing is wrong, but nothing fits: make room or ask for less
    └── Unavailable        a dependency is away: retry with backoff

Errors carry data. They map to HTTP and gRPC status in one table each (`HTTP_STATUS`, `GRPC_STATUS`).
"""

from __future__ import annotations

from typing import Final


class FarmError(Exception):
    """The root. `problem` says what is wrong, `remedy` what to do about it; both are whole sentences for people."""

    code = "internal"

    def __init__(self, problem: str, *, remedy: str = "", **data: object) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy
        self.data = data

    def __str__(self) -> str:
        return f"{self.problem} {self.remedy}".rstrip()


class InvalidRequest(FarmError):
    """The caller asked wrongly."""

    code = "invalid_request"


class NotFound(InvalidRequest):
    """The caller named something that is not there."""

    code = "not_found"


class Forbidden(FarmError):
    """The caller may not do this."""

    code = "forbidden"


class Conflict(FarmError):
    """The world moved, or is in a state in which this cannot be done."""

    code = "conflict"


class StaleToken(Conflict):
    """The lease behind a fencing token is gone. Its holder must stop that work."""

    code = "stale_token"


class CannotPlace(FarmError):
    """No node can seat what was asked for."""

    code = "cannot_place"


class Unavailable(FarmError):
    """Something we depend on is away; the same request may succeed later."""

    code = "unavailable"


HTTP_STATUS: Final[dict[type[FarmError], int]] = {
    InvalidRequest: 400,
    NotFound: 404,
    Forbidden: 403,
    Conflict: 409,
    StaleToken: 409,
    CannotPlace: 409,
    Unavailable: 503,
    FarmError: 500,
}


def http_status(error: FarmError) -> int:
    """The HTTP status of an error: that of its nearest class in the table."""
    return next(HTTP_STATUS[kind] for kind in type(error).__mro__ if kind in HTTP_STATUS)
