"""Something that is made at its first use, so that a start need not wait for what it does not need at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Late(Generic[T]):
    """`late()` is the thing. The first caller makes it; other callers wait for it meanwhile. From any thread.

    If that fails, the caller gets the error, and the next caller tries again.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: T | None = None

    def __call__(self) -> T:
        if self._made is None:
            with self._lock:
                if self._made is None:
                    self._made = self._make()
        return self._made

    @property
    def made(self) -> T | None:
        """The thing, if it was made."""
        return self._made
