"""Imports libraries without optional parts that nobody here uses.

Many libraries import another one wherever it happens to be installed, for something of theirs that we do not use. What is
loaded stays for as long as the process lives, and a service has a goal for its memory. So this is for megabytes that no
import of ours can avoid; whatever is ours to decide is better imported where it is needed.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


@contextmanager
def leaving_out(*names: str) -> Iterator[None]:
    """Let imports of this thread find the modules of these full names as if they were not installed.

    Where one was imported before, it stays: that is only larger. Afterwards they can be imported as ever.
    """
    finder = _Absent(frozenset(names))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Absent(MetaPathFinder):
    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._thread = threading.get_ident()  # others may be importing the very same, and need it

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """See the protocol."""
        if fullname in self._names and threading.get_ident() == self._thread:
            message = f"{fullname} is left out"
            raise ModuleNotFoundError(message, name=fullname)
        return None
