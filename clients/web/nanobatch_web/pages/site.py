"""All pages under one navigation."""

from __future__ import annotations

import gradio as gr
from gradio.components import Navbar

from nanobatch_web.pages.context import Context
from nanobatch_web.pages.elements import element
from nanobatch_web.pages.wizard import Wizard


def build(context: Context) -> gr.Blocks:
    """Return the site."""
    label = context.label
    site = gr.Blocks(title="nanobatch", analytics_enabled=False, delete_cache=(3600, 3600))
    with site:
        Navbar(main_page_name=label("app.new"))
        element("nb-account", {})
        Wizard(context, site)
    with site.route("Results", "results"):
        Navbar(main_page_name=label("app.new"))
        element("nb-account", {})
        element("nb-gallery", {}, elem_id="nb-gallery")
    with site.route("History", "history"):
        Navbar(main_page_name=label("app.new"))
        element("nb-account", {})
        element("nb-history", {}, elem_id="nb-history")
    with site.route("Statistics", "statistics"):
        Navbar(main_page_name=label("app.new"))
        element("nb-account", {})
        element("nb-statistics", {}, elem_id="nb-statistics")
    return site
