"""What every page's handlers need."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from nanobatch_client import NanobatchError
from nanobatch_web import refusals, texts
from nanobatch_web.viewers import Viewer, Viewers


@dataclass(frozen=True, slots=True)
class Context:
    """The page's own parts, made once for the process."""

    viewers: Viewers
    translate: gr.I18n

    def label(self, key: str) -> Any:
        """Return a label that the browser shows in its own language."""
        return self.translate(key)

    async def viewer(self, request: gr.Request) -> Viewer:
        """Return who makes a request. Raises UnauthenticatedError."""
        return await self.viewers.of(dict(request.headers))


def language_of(request: gr.Request) -> str:
    """Return the language of a request."""
    return texts.language_of(dict(request.headers))


def say(request: gr.Request, key: str, **facts: object) -> str:
    """Return a sentence in the language of a request."""
    return texts.say(language_of(request), key, **facts)


def warn(request: gr.Request, error: NanobatchError) -> None:
    """Show an error as a toast. Its words are text: Gradio's toasts are markup."""
    gr.Warning(escape(refusals.told(language_of(request), error)))
