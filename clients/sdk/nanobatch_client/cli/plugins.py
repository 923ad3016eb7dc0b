"""Commands of other packages (``up``, ``serve``, ``migrate``, ``admin``): entry-point group ``nanobatch.commands``.

Each entry point names a function that is called with the app and adds its commands to it: ``register(app: typer.Typer)``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import typer

GROUP = "nanobatch.commands"


def load(app: typer.Typer, complain: Callable[[str], None]) -> None:
    """Let every plugin add its commands. A broken one is named to ``complain`` and left out."""
    for entry in entry_points(group=GROUP):
        try:
            register: Any = entry.load()
            register(app)
        except Exception as error:  # noqa: BLE001  # whatever a plugin does wrong, the client's own commands must work
            complain(f"the commands of {entry.name} could not be loaded: {type(error).__name__}: {error}")
