"""What stands in an archive beside the pictures: ``manifest.json``, as the command line writes it, and a table. Pure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence

from nanobatch_gateway.domain import ExportedResult, ExportedRun
from nanobatch_gateway.file_names import extension, file_stem

_COLUMNS = (
    "number",
    "variation",
    "prompt",
    "state",
    "file",
    "sha256",
    "width",
    "height",
    "cost_micros",
    "uncertain_cost_micros",
    "attempts",
    "error_code",
    "error_message",
    "charged",
)
# What makes a spreadsheet take text for a formula (OWASP, "CSV Injection"); full-width signs count as well in some.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001  # meant so


def file_names(results: Sequence[ExportedResult]) -> dict[str, str]:
    """Return the names of those that have a picture, by result id; no two are the same, in whatever letters."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for result in results:
        if not result.image_id:
            continue
        stem, ending = file_stem(result.index, result.variation, result.prompt), extension(result.mime_type)
        name, number = f"{stem}.{ending}", 1
        while name in taken:  # an edited prompt may end like a variation: "fox v2"
            number += 1
            name = f"{stem}-{number}.{ending}"
        taken.add(name)
        names[result.id] = name
    return names


def as_json(run: ExportedRun, files: Mapping[str, str]) -> bytes:
    """Return the manifest; ``files`` are names by result id, ``index`` counts from 0."""
    content = {
        "execution_id": run.id,
        "model": run.model,
        "created": run.created.isoformat(),
        "state": run.state,
        "total_cost_micros": run.total_cost_micros,
        "results": [
            {
                "index": result.index,
                "variation": result.variation,
                "prompt": result.prompt,
                "state": result.state,
                "file": files.get(result.id),
                "sha256": result.sha256 or None,
                "cost_micros": result.cost_micros,
                "attempts": result.attempts,
                "error": result.error,
            }
            for result in run.results
        ],
    }
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def as_csv(run: ExportedRun, files: Mapping[str, str]) -> bytes:
    """Return a table of the results, with a byte order mark so that spreadsheets read it as UTF-8."""
    out = io.StringIO(newline="")
    table = csv.writer(out)
    table.writerow(_COLUMNS)
    for result in run.results:
        error = result.error or {}
        row = (
            result.index + 1,
            result.variation + 1,
            result.prompt,
            result.state,
            files.get(result.id, ""),
            result.sha256,
            result.width or "",
            result.height or "",
            result.cost_micros,
            result.uncertain_cost_micros,
            result.attempts,
            error.get("code", ""),
            error.get("message", ""),
            error.get("charged", ""),
        )
        table.writerow([_inert(cell) for cell in row])
    return out.getvalue().encode("utf-8-sig")


def _inert(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
