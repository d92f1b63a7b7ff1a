"""Agents' files on this node, by digest: fetched from the controller, checked, unpacked, pruned.

A transfer that breaks goes on where it stopped. A folder `bundles/DIGEST` is there whole or not at all.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

from agentfarm.limits import BUNDLE_MAX_BYTES, DIGEST_PATTERN
from nodeagent.core.problems import BundleMissing, StartFailed
from nodeagent.machine.logging import log
from nodeagent.machine.programs import OUR_PYTHON, RuntimeFolder, run_program
from nodeagent.replicas.unpack import BUNDLE_AT_FAULT

SPARE_BUNDLES: Final = 8
"""Bundles kept although no replica uses them: a rollback then needs no transfer."""
UNPACK_TIMEOUT_S: Final = 120.0
ARCHIVE_BYTES_MAX: Final = 2 * BUNDLE_MAX_BYTES
"""What a transfer may bring at most: the files of the largest bundle, and their tar headers, with room to spare. What
the files may be is for the unpacking program to say."""
_DIGEST: Final = re.compile(DIGEST_PATTERN)


Fetch = Callable[[str, int], AsyncIterator[tuple[int, bytes]]]
"""digest, offset -> (total size, next bytes). Raises BundleMissing or LinkAway."""


class Bundles:
    """The folder `bundles/`."""

    def __init__(self, folder: Path, runtime: RuntimeFolder, fetch: Fetch) -> None:
        self._folder = folder
        self._runtime = runtime
        self._fetch = fetch
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(self, digest: str) -> Path:
        """The agent's files. Raises StartFailed; LinkAway while the controller cannot be asked."""
        if not _DIGEST.fullmatch(digest):
            raise StartFailed("bundle_failed", f"{digest!r} is not a bundle's digest.", is_final=True)
        folder = self._folder / digest.removeprefix("sha256:")
        async with self._locks.setdefault(digest, asyncio.Lock()):
            if not folder.is_dir():
                try:
                    await self._bring(digest, folder)
                except OSError as problem:
                    raise StartFailed("bundle_failed", _disk_words(problem, self._folder), is_final=False) from problem
            with suppress(OSError):
                os.utime(folder)
        return folder

    async def _bring(self, digest: str, folder: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        archive = folder.with_name(f"{folder.name}.part")
        await self._download(digest, archive)
        ended = await run_program(
            self._runtime.command(OUR_PYTHON, "nodeagent.replicas.unpack", str(archive), digest, str(folder)),
            timeout_s=UNPACK_TIMEOUT_S,
        )
        if ended.code == 0:
            archive.unlink(missing_ok=True)
            log.info("bundle.fetched", digest=digest)
            return
        if ended.code == BUNDLE_AT_FAULT:
            archive.unlink(missing_ok=True)
        raise StartFailed("bundle_failed", ended.output, is_final=ended.code == BUNDLE_AT_FAULT)

    async def _download(self, digest: str, archive: Path) -> None:
        have = archive.stat().st_size if archive.exists() else 0
        try:
            with archive.open("ab") as file:
                async for total, data in self._fetch(digest, have):
                    if total < have or total > ARCHIVE_BYTES_MAX:
                        file.truncate(0)
                        raise StartFailed(
                            "bundle_failed", f"The bundle's size is wrong: {total} bytes.", is_final=False
                        )
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BundleMissing as problem:
            raise StartFailed("bundle_failed", f"The controller has no bundle {digest}.", is_final=True) from problem

    def prune(self, used: Collection[str]) -> None:
        """Forget what no replica uses, but for the few used last."""
        if not self._folder.is_dir():
            return
        names = {digest.removeprefix("sha256:") for digest in used}
        spare = [entry for entry in self._folder.iterdir() if entry.name.removesuffix(".part") not in names]
        spare.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
        for entry in spare[SPARE_BUNDLES:]:
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
            log.info("bundle.pruned", name=entry.name)


def _disk_words(problem: OSError, folder: Path) -> str:
    free_mib = 0
    with suppress(OSError):
        free_mib = shutil.disk_usage(folder).free // 2**20
    return f"The node cannot write to {folder}: {problem.strerror} ({free_mib} MiB free). It is tried again."
