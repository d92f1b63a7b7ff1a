"""A bundle: an agent's files as one archive, named by its content.

Owns the archive's form, its limits and its safety. A bundle is a plain tar of regular files, in order of their names,
with owners, times and modes set to fixed values: equal files give equal bytes on every machine. It is not compressed,
so its digest is the SHA-256 of the very bytes that travel and are stored. Anyone can check them without unpacking, no
release of a compressor can change a name, and nothing can grow when it is opened. (That is why compressed forms lost;
agents are kilobytes of source, and PostgreSQL compresses what it stores.)

Standard library only: node daemons use this too.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final, Protocol

from agentfarm.agents.ignore import DEFAULT_PATTERNS, IGNORE_FILE, IgnoreRules
from agentfarm.errors import InvalidRequest
from agentfarm.limits import BUNDLE_MAX_BYTES

BUNDLE_FILES_MAX: Final = 10_000
_BIGGEST_SHOWN: Final = 5
_PLAIN, _EXECUTABLE = 0o644, 0o755


@dataclass(frozen=True, slots=True)
class Bundle:
    """An archive, its name and what is in it."""

    digest: str
    """`sha256:` and the hexadecimal SHA-256 of `data`."""
    data: bytes
    files: tuple[str, ...]


def digest_of(data: bytes) -> str:
    """The name of a bundle with these bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Source(Protocol):
    """What is to be packed; `agentfarm.agents.sources.AgentSource` is one."""

    @property
    def root(self) -> Path: ...
    @property
    def only(self) -> tuple[str, ...]:
        """Names of the files to take, relative to the root; empty takes all that is not ignored."""
        ...

    @property
    def extra(self) -> Mapping[str, bytes]:
        """Files to add, by relative name. A file of that name in the folder wins."""
        ...


def pack(source: Source) -> Bundle:
    """Archive an agent's files, less what `.farmignore` and the built-in list exclude.

    Raises InvalidRequest when they are too big (naming the biggest files) or a link leads out of the folder.
    """
    root = source.root
    chosen = {name: root / name for name in source.only} if source.only else dict(_walk(root))
    added = {name: data for name, data in source.extra.items() if name not in chosen}
    _check_size({name: path.stat().st_size for name, path in chosen.items()}, added, root)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted({*chosen, *added}):
            if name in added:
                _add(archive, name, added[name], _PLAIN)
            else:
                executable = chosen[name].stat().st_mode & 0o100
                _add(archive, name, chosen[name].read_bytes(), _EXECUTABLE if executable else _PLAIN)
    data = buffer.getvalue()
    return Bundle(digest_of(data), data, tuple(sorted({*chosen, *added})))


def verify(source: bytes | Path, digest: str) -> None:
    """Check a bundle against its name. Raises InvalidRequest when they differ."""
    if isinstance(source, bytes):
        actual = digest_of(source)
    else:
        with source.open("rb") as file:
            actual = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    if actual != digest:
        raise InvalidRequest(
            f"The bundle's content does not match its name: it is {actual}, not {digest}.",
            remedy="Send it again.",
            expected=digest,
            found=actual,
        )


def unpack(source: bytes | Path, folder: Path) -> None:
    """Put a bundle's files into `folder`, which appears whole or not at all.

    Raises InvalidRequest, having written nothing, for an archive that is damaged, too big, or holds anything but
    regular files inside the folder. A folder that exists already is replaced.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            _extract(file, staging)
        staging.chmod(_EXECUTABLE)
        if folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _extract(file: IO[bytes], folder: Path) -> None:
    left = BUNDLE_MAX_BYTES
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for count, member in enumerate(archive, start=1):
                left -= member.size
                if left < 0 or count > BUNDLE_FILES_MAX:
                    raise InvalidRequest(f"The bundle is larger than {_limits()}.")
                _extract_one(archive, member, folder)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"The bundle is damaged: {error}.", remedy="Deploy the agent again.") from error


def _extract_one(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    parts = PurePosixPath(member.name).parts
    if not member.isreg() or not is_safe_name(member.name):
        raise InvalidRequest(
            f"The bundle holds {member.name!r}, which is not a regular file inside the agent's folder."
        )
    content = archive.extractfile(member)
    assert content is not None  # it is a regular file
    data = content.read()
    if len(data) != member.size:
        raise InvalidRequest("The bundle is damaged: it ends early.", remedy="Deploy the agent again.")
    target = folder.joinpath(*parts)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.write(data)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise InvalidRequest(f"The bundle holds {member.name!r} twice.") from error
    target.chmod(_EXECUTABLE if member.mode & 0o100 else _PLAIN)


def is_safe_name(name: str) -> bool:
    """Whether an archive's member of this name stays inside the folder it is unpacked into, on every system."""
    if not name or "\\" in name or "\0" in name or name.startswith("/") or len(name) > 1024:
        return False
    return all(part not in ("", ".", "..") and ":" not in part and len(part) <= 255 for part in name.split("/"))


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Every file to take as (relative name, path). A link to a place inside the folder is followed, a circle once."""
    rules = IgnoreRules.read(root / IGNORE_FILE, DEFAULT_PATTERNS)
    real_root = root.resolve()
    waiting: list[tuple[str, Path, frozenset[Path]]] = [("", root, frozenset({real_root}))]
    while waiting:
        prefix, folder, above = waiting.pop()
        for entry in sorted(folder.iterdir()):
            name = f"{prefix}{entry.name}"
            real = entry.resolve()
            is_folder = real.is_dir()
            if rules.excludes(name, is_folder=is_folder):
                continue
            if entry.is_symlink():
                _check_link(entry, real, real_root)
            if is_folder and real not in above:
                waiting.append((f"{name}/", entry, above | {real}))
            elif real.is_file():
                yield name, entry


def _check_link(link: Path, target: Path, root: Path) -> None:
    if not target.is_relative_to(root):
        raise InvalidRequest(
            f"{link} is a link to {target}, outside the agent's folder.",
            remedy=f"Copy what it needs into the folder, or name the link in {IGNORE_FILE}.",
        )
    if not target.exists():
        raise InvalidRequest(
            f"{link} is a link to {target}, which does not exist.", remedy="Remove the link, or mend it."
        )


def _check_size(sizes: Mapping[str, int], extra: Mapping[str, bytes], root: Path) -> None:
    total = sum(sizes.values()) + sum(map(len, extra.values()))
    if total <= BUNDLE_MAX_BYTES and len(sizes) + len(extra) <= BUNDLE_FILES_MAX:
        return
    biggest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:_BIGGEST_SHOWN]
    listed = ", ".join(f"{name} ({size / 2**20:.1f} MiB)" for name, size in biggest)
    raise InvalidRequest(
        f"{root} has {len(sizes)} files with {total / 2**20:.1f} MiB; a bundle may have {_limits()}. "
        f"The biggest: {listed}.",
        remedy=f"Name what the agent does not need in {root / IGNORE_FILE}, one pattern a line.",
    )


def _limits() -> str:
    return f"{BUNDLE_FILES_MAX} files and {BUNDLE_MAX_BYTES // 2**20} MiB"


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    if not is_safe_name(name):
        raise InvalidRequest(f"A bundle cannot hold a file named {name!r}.", remedy="Rename it, or ignore it.")
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    archive.addfile(info, io.BytesIO(data))
