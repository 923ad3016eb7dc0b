"""What every child process of ours does first: it dies with its parent, bears a memory limit and leaves no core dump.

Linux only; elsewhere a child still ends when its input does, and its memory is not limited.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Mapping

_NEEDED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")


def environment(*also: str) -> Mapping[str, str]:
    """Return what an interpreter needs to start where this one did, and the variables named besides.

    The rest stays here: a child that reads bytes of strangers has no business with our keys and passwords.
    """
    return {name: os.environ[name] for name in (*_NEEDED, *also) if name in os.environ}


def die_with(parent: int) -> None:
    """End this process with the thread of ``parent`` (a process id) that started it; at once where it is gone already."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - nothing else needs it, and not everywhere

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 = PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died before we could ask for that
        sys.exit()


def limit_memory(size: int) -> None:
    """Let this process address at most ``size`` bytes, and write no core dump."""
    if sys.platform != "linux":  # elsewhere the limit is refused or means something else
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    size = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
