"""Lets Gradio start without work that nobody sees: half of what its import takes, and six of seven servers.

For each of its components Gradio renders a stub file, parses its own source for the place to put it, and compares it with
the one that it wrote the last time, beside its code; then it renders a docstring for each of 200 event methods. No
process that serves a page reads either, and an image's file system is read-only. There is no setting for either half.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

_MAKER = "gradio.component_meta"
"""The module whose metaclass does it, for each class of a component."""


class _Finder(MetaPathFinder):
    """Finds one module, the one to change once it is loaded: afterwards all classes would be there already."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See the protocol."""
        if fullname != _MAKER:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.origin)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        """Load it, and take the work out. What is not there under its name is left as it is: that is only slower."""
        super().exec_module(module)
        inside: Any = module
        if hasattr(inside, "create_or_modify_pyi"):
            inside.create_or_modify_pyi = _nothing
        if hasattr(getattr(inside, "EventListener", None), "set_doc"):
            inside.EventListener.set_doc = _nothing


def _nothing(*_: object, **__: object) -> None:
    """Stand for both."""


def install() -> None:
    """Let the next import of Gradio be a quick one; call it before the first."""
    sys.meta_path.insert(0, _Finder())


@contextmanager
def one_server() -> Iterator[None]:
    """Let pages be laid out and set up without a server for each of their states, while the context is open.

    Gradio makes an application, with its hundred routes, when a layout ends, for each further page, and when its queue is
    set up; mounting makes another one, which is the one that serves.
    """
    from gradio import blocks  # noqa: PLC0415  # not before it is to be quick

    module: Any = blocks
    application, module.App = module.App, _NoApp
    try:
        yield
    finally:
        module.App = application


class _NoApp:
    create_app = staticmethod(_nothing)
