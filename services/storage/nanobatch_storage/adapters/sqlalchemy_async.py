"""SQLAlchemy's asyncio engine, without the ORM.

``sqlalchemy.ext.asyncio`` imports its sessions, and they import the whole ORM: 7 MB in every storage, for classes that
nobody here makes. All statements of ours are Core's. So for as long as the package is being imported, the two modules with
sessions are empty ones.
"""

from __future__ import annotations

import sys
from types import ModuleType

_PACKAGE = "sqlalchemy.ext.asyncio"


class _LeftOut:
    def __init__(self, *_: object, **__: object) -> None:
        message = "This process has left out SQLAlchemy's ORM: see nanobatch_storage.adapters.sqlalchemy_async."
        raise NotImplementedError(message)


class _Empty(ModuleType):
    def __getattr__(self, name: str) -> type[_LeftOut]:
        if name.startswith("__"):  # what the import itself looks for
            raise AttributeError(name)
        return _LeftOut


# Where somebody has imported it before, there is nothing left to leave out.
_empty = {} if _PACKAGE in sys.modules else {f"{_PACKAGE}.{name}": _Empty(name) for name in ("scoping", "session")}
sys.modules.update(_empty)
try:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
finally:
    for _name in _empty:
        del sys.modules[_name]

__all__ = ["AsyncConnection", "AsyncEngine", "create_async_engine"]
