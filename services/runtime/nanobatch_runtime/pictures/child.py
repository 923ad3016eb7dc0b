"""The child: ``python -m nanobatch_runtime.pictures.child PARENT_PID MEMORY_BYTES SECONDS``.

One line of JSON in, two out: ``{}`` when a task was taken up, then its answer. Pictures never go through the pipes,
only paths and thumbnails do. It ends when its input ends, so also when its parent is gone.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from nanobatch_runtime import child
from nanobatch_runtime.pictures.errors import PictureError
from nanobatch_runtime.pictures.facts import PictureLimits, Thumbnail

_GRACE_SECONDS = 1.0


def _answer(work: ModuleType, task: dict[str, Any]) -> dict[str, Any]:
    limits = PictureLimits(max_bytes=task["max_bytes"], max_pixels=task["max_pixels"])
    path = Path(task["path"])
    try:
        if task["do"] == "check":
            checked = work.check(path, limits, thumbnail=task["thumbnail"])
            return {"facts": asdict(checked.facts), "thumbnail": checked.thumbnail and _told(checked.thumbnail)}
        return {"facts": asdict(work.prepare_upload(path, Path(task["out"]), limits)), "thumbnail": None}
    except PictureError as error:
        return {"error": error.reason, "message": error.message}
    except MemoryError:
        return {"error": "MEMORY"}
    except OSError as error:  # a path of ours: no such file, disk full
        return {"errno": error.errno, "message": error.strerror, "path": str(error.filename or path)}


def _told(thumbnail: Thumbnail) -> dict[str, Any]:
    return {"data": base64.b64encode(thumbnail.data).decode(), "facts": asdict(thumbnail.facts)}


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def main() -> None:
    """Serve tasks until the input ends."""
    # Ctrl-C goes to the whole terminal; whether and when we end is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent, memory, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    child.die_with(parent)
    child.limit_memory(memory)
    # The pipe is ours alone: what a library prints must not pass for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    from nanobatch_runtime.pictures import work  # noqa: PLC0415 - under the memory limit

    _say(answers, {})
    for line in sys.stdin:
        # The parent kills at the limit. Should it be gone or stuck, the kernel does, also in the middle of C code.
        signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE_SECONDS)
        _say(answers, {})
        answer = _answer(work, json.loads(line))
        signal.setitimer(signal.ITIMER_REAL, 0)
        _say(answers, answer)


if __name__ == "__main__":
    main()
