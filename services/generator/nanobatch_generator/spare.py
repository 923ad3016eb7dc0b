"""A spare process: ``python -m nanobatch_generator.spare PARENT_PID MEMORY_BYTES LOG_LEVEL``, for one call alone.

Frames (:mod:`nanobatch_generator.spare_wire`): in comes which provider and its settings, out goes "ready"; in comes the call
with its key, out goes its answer. It never speaks to storage: lease, attempt and picture stay with the parent, and whatever
dies here is this call's own. It ends with its parent, and when its input ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import timedelta
from typing import Any, BinaryIO

import structlog

from nanobatch_generator import spare_wire
from nanobatch_generator.domain import Charged, FailureClass, ProviderError
from nanobatch_generator.providers.registry import open_providers
from nanobatch_runtime import child, logs

_log = structlog.get_logger("nanobatch.spare")

_OUT_OF_MEMORY = 70


async def _call(settings: dict[str, Any], calls: BinaryIO, answers: BinaryIO) -> None:
    name = settings.pop("provider")
    settings["sandbox_delay"] = timedelta(seconds=settings["sandbox_delay"])
    async with open_providers(**settings, only=name) as providers:
        await providers[name].ready()
        _say(answers, spare_wire.pack({}))
        # Blocking: there is nothing else to do here.
        request, key = spare_wire.request_of(spare_wire.read(calls.read))
        try:
            frame = spare_wire.answer_frame(await providers[name].submit(request, key))
        except ProviderError as error:
            frame = spare_wire.error_frame(error)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  # a bug is no death: it is told, and the trace stays in the log
            _log.exception("spare.failed")
            message = "Something went wrong on our side during the call, which may have been charged."
            frame = spare_wire.error_frame(
                ProviderError(FailureClass.UNKNOWN, "INTERNAL", message, charged=Charged.MAYBE)
            )
        _say(answers, frame)


def _say(answers: BinaryIO, frame: bytes) -> None:
    answers.write(frame)
    answers.flush()


def main() -> int:
    """Make one call and end."""
    # A terminal's Ctrl-C and a service manager's SIGTERM reach all processes: when to end is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child.die_with(int(sys.argv[1]))
    child.limit_memory(int(sys.argv[2]))
    logs.configure(sys.argv[3])
    # The pipe is ours alone: what a library prints must not pass for an answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        settings, _ = spare_wire.read(sys.stdin.buffer.read)
        asyncio.run(_call(settings, sys.stdin.buffer, answers))
    except EOFError:  # not needed any more
        return 0
    except MemoryError:
        return _OUT_OF_MEMORY
    except Exception:  # noqa: BLE001  # said here, where the trace is; the parent sees that nothing came
        _log.exception("spare.unready")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
