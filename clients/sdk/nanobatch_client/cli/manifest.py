"""``manifest.json``: what the pictures in a folder are, where they came from and what they cost."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nanobatch_client.cli.output import jsonable
from nanobatch_client.models import Execution, Result

NAME = "manifest.json"


def build(execution: Execution, results: Sequence[Result], files: Mapping[str, str]) -> dict[str, Any]:
    """Return the manifest; ``files`` are names by result id, ``index`` counts from 0 as in the API."""
    return {
        "execution_id": execution.id,
        "model": execution.model,
        "created": jsonable(execution.create_time),
        "state": execution.state.value,
        "total_cost_micros": execution.stats.total_cost_micros,
        "results": [
            {
                "index": result.batch_index,
                "variation": result.variation,
                "prompt": result.prompt_text,
                "state": result.state.value,
                "file": files.get(result.id),
                "sha256": result.sha256 or None,
                "cost_micros": result.cost_micros,
                "attempts": result.attempts,
                "error": jsonable(result.error),
            }
            for result in results
        ],
    }


def write(folder: Path, manifest: Mapping[str, Any]) -> Path:
    """Write the manifest, whole or not at all, and return where it stands.

    A manifest of another execution is moved aside (``manifest-<first 8 of its id>.json``). A ``manifest.json`` that is
    not ours is left alone: then ours gets the longer name.
    """
    path = folder / NAME
    other = _execution_id(path)
    if other is not None and other != manifest["execution_id"]:
        path.replace(folder / _aside(other))
    elif other is None and path.exists():
        path = folder / _aside(str(manifest["execution_id"]))
    part = folder / f".{secrets.token_hex(6)}.part"
    try:
        with part.open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _aside(execution_id: str) -> str:
    # The id comes from a file here, so nothing of it but letters and digits may become part of a path.
    return f"manifest-{''.join(filter(str.isalnum, execution_id))[:8]}.json"


def _execution_id(path: Path) -> str | None:
    """Return whose manifest lies there; None: there is none, or it is not ours."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("results"), list):
        return None
    found = content.get("execution_id")
    return found if isinstance(found, str) and found else None
