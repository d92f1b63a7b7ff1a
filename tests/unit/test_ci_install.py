"""`.ci/install`: the packages that tests need, from one list. Scripts that tell stand for what it runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CI = Path(__file__).parents[2] / ".ci"
TELLING = """#!/bin/sh
echo "${0##*/} $*" >> "$TOLD"
"""
DPKG_QUERY = """#!/bin/sh
for name; do :; done
case " $INSTALLED " in *" $name "*) echo installed ;; *) exit 1 ;; esac
"""


class Machine:
    """A PATH of few programs, and a copy of `.ci` with a list of its own."""

    def __init__(self, folder: Path) -> None:
        self.programs, self.ci, self.record = folder / "bin", folder / ".ci", folder / "told"
        self.programs.mkdir()
        self.ci.mkdir()
        shutil.copy(CI / "install", self.ci)
        (self.ci / "packages").write_text("# why\none  # a test\n\ntwo\n")
        for name in ("bash", "dirname", "env", "sh"):
            program = shutil.which(name)
            assert program is not None
            (self.programs / name).symlink_to(program)

    def add(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def install(self, *installed: str) -> subprocess.CompletedProcess[str]:
        variables = {"PATH": str(self.programs), "TOLD": str(self.record), "INSTALLED": " ".join(installed)}
        return subprocess.run([self.ci / "install"], capture_output=True, text=True, env=variables, check=False)

    @property
    def calls(self) -> list[str]:
        return self.record.read_text().splitlines() if self.record.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Debian, as root."""
    made = Machine(tmp_path)
    made.add("dpkg-query", DPKG_QUERY)
    made.add("apt-get", TELLING)
    made.add("id", "#!/bin/sh\necho 0\n")
    return made


def test_what_is_there_already_is_not_asked_for(machine: Machine) -> None:
    assert machine.install("one", "two").returncode == 0
    assert machine.calls == []


def test_only_what_is_missing_is_installed(machine: Machine) -> None:
    done = machine.install("one")
    assert done.returncode == 0, done.stderr
    options = "apt-get -o DPkg::Lock::Timeout=120 -qq -y"
    assert machine.calls == [f"{options} update", f"{options} install --no-install-recommends two"]


def test_other_users_go_through_sudo_which_asks_nothing(machine: Machine) -> None:
    machine.add("id", "#!/bin/sh\necho 1000\n")
    done = machine.install()
    assert (done.returncode, machine.calls) == (1, [])
    assert "As root: apt-get install one two" in done.stderr
    machine.add("sudo", TELLING)
    assert machine.install().returncode == 0
    assert all(call.startswith("sudo -n env DEBIAN_FRONTEND=noninteractive apt-get") for call in machine.calls)


def test_machine_without_apt_learns_what_to_install(machine: Machine) -> None:
    (machine.programs / "apt-get").unlink()
    done = machine.install("one", "two")
    assert done.returncode == 1
    assert "one two" in done.stderr


def test_failure_of_apt_is_a_failure(machine: Machine) -> None:
    machine.add("apt-get", "#!/bin/sh\necho 'E: no network' >&2\nexit 100\n")
    done = machine.install("two")
    assert done.returncode == 1
    assert "E: no network" in done.stderr
    assert "Missing: one" in done.stderr


def test_list_gives_a_reason_for_each_package() -> None:
    lines = [line for line in (CI / "packages").read_text().splitlines() if line and not line.startswith("#")]
    assert all(reason.strip() for line in lines for reason in [line.partition("#")[2]]), "which test needs it?"
    names = [line.split()[0] for line in lines]
    assert names == sorted(set(names))
