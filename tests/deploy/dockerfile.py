"""What images of deploy/Dockerfile start: its instructions read as Docker reads them, stage by stage."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

DOCKERFILE = Path(__file__).resolve().parents[2] / "deploy/Dockerfile"


@dataclass(frozen=True)
class Image:
    """What a stage says of the process that is started, the stages that it is built on included."""

    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def words(self, container: dict) -> list[str]:
        """Return what a container starts: a manifest's ``command`` is for ENTRYPOINT and CMD, its ``args`` for CMD."""
        if "command" in container:
            return [*container["command"], *container.get("args", [])]
        return [*self.entrypoint, *container.get("args", self.command)]


def image(name: str) -> Image:
    """Return the image of a name as manifests have it: its last part is the target of its build."""
    repository = name.partition("@")[0]
    return images(DOCKERFILE.read_text())[repository.rpartition("/")[2].partition(":")[0]]


@cache
def images(text: str) -> dict[str, Image]:
    """Return what the stages of a Dockerfile start; each has a name."""
    found: dict[str, Image] = {}
    stage = ""
    for instruction, rest in _instructions(text):
        match instruction:
            case "FROM":
                base, _, stage = re.split(r"\s+", rest)
                found[stage] = found.get(base, Image())
            case "ENTRYPOINT":  # takes back the base's CMD
                found[stage] = Image(json.loads(rest))
            case "CMD":
                found[stage] = Image(found[stage].entrypoint, json.loads(rest))
    return found


def _instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.strip().partition(" ") for line in joined.splitlines())
    ]
