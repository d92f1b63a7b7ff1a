"""A program: check a bundle against its digest and unpack it.

A process of its own, so that a hostile or huge archive meets limits of its own and leaves nothing in the daemon's
memory. Exit codes: 0 done, 1 the bundle is at fault, 2 the disk is.
"""

from __future__ import annotations

import sys
from pathlib import Path

from agentfarm.agents.bundle import unpack, verify
from agentfarm.errors import InvalidRequest

BUNDLE_AT_FAULT = 1
DISK_AT_FAULT = 2


def main(arguments: list[str]) -> int:
    """See the module."""
    archive, digest, folder = Path(arguments[0]), arguments[1], Path(arguments[2])
    try:
        verify(archive, digest)
        unpack(archive, folder)
    except InvalidRequest as problem:
        print(problem)
        return BUNDLE_AT_FAULT
    except OSError as problem:
        print(f"{problem.strerror}: {problem.filename or folder}")
        return DISK_AT_FAULT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
