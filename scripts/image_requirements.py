"""Print what an image needs from outside: the dependencies of its members, from their own pyproject.toml.

python scripts/image_requirements.py gateway
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_COMMAND = ("nanobatch-embedded", "nanobatch-client")
"""What the command ``nanobatch serve`` is made of, in every image; the other services are not installed beside one."""


def members() -> dict[str, list[str]]:
    """Return the dependencies of each member of this repository, those of its extras included."""
    files = [path for place in ("protos", "services/*", "clients/*") for path in ROOT.glob(f"{place}/pyproject.toml")]
    projects = [tomllib.loads(path.read_text())["project"] for path in files]
    return {
        project["name"]: [
            *project["dependencies"],
            *(each for extra in project.get("optional-dependencies", {}).values() for each in extra),
        ]
        for project in projects
    }


def image(service: str) -> tuple[set[str], set[str]]:
    """Return an image's members, and what these need from outside."""
    known = members()
    wanted, found = {f"nanobatch-{service}", "nanobatch-client"}, set(_COMMAND)
    outside: set[str] = set()
    while wanted:
        name = wanted.pop()
        found.add(name)
        inner = {each for each in known[name] if each in known}
        outside |= {each for each in known[name] if each not in known}
        wanted |= inner - found
    return found, outside


if __name__ == "__main__":
    print("\n".join(sorted(image(sys.argv[1])[1], key=lambda name: re.sub(r"\W", "-", name))))
