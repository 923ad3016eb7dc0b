"""All pages under one navigation."""

from __future__ import annotations

import gradio as gr
from gradio.components import Navbar

from nanobatch_web.pages.context import Context
from nanobatch_web.pages.elements import element
from nanobatch_web.pages.wizard import Wizard

_PAGES = (
    ("Results", "results", "nb-gallery"),
    ("History", "history", "nb-history"),
    ("Statistics", "statistics", "nb-statistics"),
)
"""Name, path and element of each page besides the wizard."""


def build(context: Context) -> gr.Blocks:
    """Return the site."""
    label = context.label
    site = gr.Blocks(title="nanobatch", analytics_enabled=False, delete_cache=(3600, 3600))
    with site:
        Navbar(main_page_name=label("app.new"))
        _head("app.new")
        Wizard(context, site)
    for name, path, inner in _PAGES:
        with site.route(name, path):
            Navbar(main_page_name=label("app.new"))
            _head(f"nav.{path}")
            element(inner, {}, elem_id=inner)
    return site


def _head(title: str) -> None:
    """Say where one is, by a heading of the catalogue, and who one is."""
    element("nb-account", {})
    element("nb-heading", {"title": title})
