"""What states the version of the release in the making: all say the same."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_installed_release_is_the_one_of_this_checkout() -> None:
    assert version("agentfarm") == PROJECT["version"], "run `make setup`"


def test_changelog_begins_with_the_release_in_the_making() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    releases = [heading.split()[0] for heading in headings]
    assert releases[0] == PROJECT["version"]
    assert releases == sorted(set(releases), key=lambda release: [int(n) for n in release.split(".")], reverse=True)
