"""The system account the embedded server runs under.

PostgreSQL refuses to run as root. Started by root, it runs as an unprivileged account that exists already, and that
account must be able to reach its data. Where a folder above bars the way (`/root` is 0700), it gets permission to
*pass* that folder and nothing more: an access-control entry for this one account where the file system has them,
else the search bit. No account is made and nothing becomes readable.
"""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agentfarm.errors import Unavailable

ACCOUNT_NAMES: Final = ("agentfarm", "postgres", "nobody")
"""The first that exists."""
PROBE_TIMEOUT_S: Final = 10.0
ACL_NAME: Final = "system.posix_acl_access"


@dataclass(frozen=True, slots=True)
class Account:
    """The account of the server. `uid` None: our own."""

    name: str
    uid: int | None = None
    gid: int | None = None

    def popen_options(self) -> dict[str, Any]:
        """What subprocess needs to start a program under this account, without our terminal and our rights."""
        options: dict[str, Any] = {"start_new_session": True, "umask": 0o077, "stdin": subprocess.DEVNULL}
        if self.uid is not None:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options

    def own(self, path: Path) -> None:
        """Give a file or folder to this account."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def refused(self, test: str, paths: Sequence[Path]) -> list[Path]:
        """The paths for which `test`, one of test(1)'s letters such as x or r, is not true for this account.

        One child asks the kernel for all, because each child delays the start of the controller.
        """
        if self.uid is None:
            return []
        probe = subprocess.run(  # only a child with the account's rights knows: modes, ACLs and mounts all count
            ["/bin/sh", "-c", f'n=0; for path; do test -{test} "$path" || echo $n; n=$((n + 1)); done', "sh",
             *map(str, paths)],
            cwd="/", timeout=PROBE_TIMEOUT_S, check=True, stdout=subprocess.PIPE, **self.popen_options(),
        )  # fmt: skip
        return [paths[int(number)] for number in probe.stdout.split()]


def choose_account(folder: Path) -> Account:
    """Our own account; for root the owner of an earlier data folder, or the first of ACCOUNT_NAMES.

    Raises Unavailable where root has no such account to give.
    """
    if os.geteuid() != 0:
        return Account(name="", uid=None)
    data = folder / "data"
    if data.exists() and (owner := data.stat().st_uid) != 0:
        try:
            entry = pwd.getpwuid(owner)
        except KeyError:
            raise Unavailable(
                f"{data} belongs to user id {owner}, which is no account of this machine.",
                remedy=f"Make the account again, or give the folder to another one: chown -R postgres {data}",
            ) from None
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    for name in ACCOUNT_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise Unavailable(
        f"PostgreSQL does not run as root, and none of the accounts {', '.join(ACCOUNT_NAMES)} exists.",
        remedy="Start the controller as another user, or make an account: useradd --system agentfarm",
    )


def open_way(account: Account, folder: Path, report: Callable[[str], None]) -> None:
    """Let `account` pass every folder above `folder`. Raises Unavailable where that cannot be had."""
    if account.uid is None:
        return
    barred = account.refused("x", way := list(reversed(folder.resolve().parents)))
    while barred:
        above = barred[0]  # the highest: what lies below a barred folder cannot be judged yet
        _let_pass(account, above)
        barred = account.refused("x", way)
        if above in barred:
            raise Unavailable(
                f"PostgreSQL runs as {account.name!r} here, because it refuses root, and cannot pass {above}.",
                remedy=f"Put data_dir elsewhere (such as /var/lib/agentfarm), or allow it: chmod o+x {above}",
            )
        report(f"let the account {account.name!r} pass {above} (not read it): the database runs under it")


def _let_pass(account: Account, folder: Path) -> None:
    assert account.uid is not None
    mode = folder.stat().st_mode
    try:
        os.setxattr(folder, ACL_NAME, _with_search(_read_acl(folder, mode), account.uid))
    except (OSError, AttributeError):  # no ACLs on this file system, or not Linux
        try:
            folder.chmod(mode | 0o001)
        except OSError:
            return  # the caller asks the kernel again and says what to do


# ------------------------------------------------------------------ POSIX access-control lists, acl(5)

_USER_OWNER, _USER, _GROUP_OWNER, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_SEARCH, _NOBODY_ID, _VERSION = 0x1, 0xFFFFFFFF, 2


def _read_acl(folder: Path, mode: int) -> dict[tuple[int, int], int]:
    """Entries (tag, id) -> permissions. A folder without a list has the one its mode bits stand for."""
    try:
        raw = os.getxattr(folder, ACL_NAME)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return {
            (_USER_OWNER, _NOBODY_ID): mode >> 6 & 7,
            (_GROUP_OWNER, _NOBODY_ID): mode >> 3 & 7,
            (_OTHER, _NOBODY_ID): mode & 7,
        }
    return {(tag, who): permissions for tag, permissions, who in struct.iter_unpack("<HHI", raw[4:])}


def _with_search(entries: dict[tuple[int, int], int], uid: int) -> bytes:
    entries = dict(entries)
    group = entries.get((_MASK, _NOBODY_ID), entries[_GROUP_OWNER, _NOBODY_ID])
    entries[_USER, uid] = entries.get((_USER, uid), 0) | _SEARCH
    entries[_MASK, _NOBODY_ID] = group | _SEARCH
    rows = sorted((tag, who, permissions) for (tag, who), permissions in entries.items())
    return struct.pack("<I", _VERSION) + b"".join(struct.pack("<HHI", tag, bits, who) for tag, who, bits in rows)


# ------------------------------------------------------------------ programs


def reachable_programs(account: Account, install: Path, folder: Path, report: Callable[[str], None]) -> Path:
    """The `bin` folder of an installation that `account` can run: the wheel's own, or a copy beside the data.

    install: the wheel's `pginstall18`; its shared libraries are in `<package>.libs` beside the package.
    """
    libraries = install.parent.parent / f"{install.parent.name}.libs"
    telltale = ("bin/initdb", "bin/postgres", "share/postgresql/postgres.bki", "lib/postgresql/plpgsql.so")
    needed = [install / name for name in telltale]
    if libraries.exists():
        needed += list(libraries.iterdir())[:1]  # that one can be read says that the way to all is open
    if not account.refused("r", needed):
        return install / "bin"
    home = folder / "programs"
    copy = home / install.parent.name / install.name
    if not (copy / "complete").exists():
        report(f"the account {account.name!r} cannot reach {install}: copying PostgreSQL beside its data")
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(install, copy, ignore=shutil.ignore_patterns("include", "*.a"))
        if libraries.exists():
            shutil.copytree(libraries, home / libraries.name)
        for path in (home, *home.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        (copy / "complete").touch(0o644)
    return copy / "bin"
