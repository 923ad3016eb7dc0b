"""The page as it is put together."""

import pytest

from nanobatch_runtime.settings import SettingsError, load
from nanobatch_web import quick_gradio
from nanobatch_web.app import gr, make_app
from nanobatch_web.settings import WebSettings


def test_nothing_warns_of_itself_when_the_page_starts():
    make_app(load(WebSettings), 7860)  # a warning is an error here: whoever types `make run` would see it


def test_gradio_makes_one_server_and_not_one_for_each_page(monkeypatch):
    made = []
    make = gr.routes.App.create_app
    monkeypatch.setattr(
        gr.routes.App, "create_app", lambda *given, **named: made.append(given) or make(*given, **named)
    )
    make_app(load(WebSettings), 7860)
    assert len(made) == 1


def test_gradio_writes_no_documentation_while_it_loads():
    """Where a new version of it has other names, the page starts as slowly as it did before: then this says so."""
    assert gr.component_meta.create_or_modify_pyi is quick_gradio._nothing
    assert gr.component_meta.EventListener.set_doc is quick_gradio._nothing


@pytest.mark.parametrize("name", ["NANOBATCH_WEB_URL", "NANOBATCH_PUBLIC_URL"])
def test_what_browsers_cannot_reach_is_no_address_of_the_page(name: str) -> None:
    field = {"NANOBATCH_WEB_URL": "page_url", "NANOBATCH_PUBLIC_URL": "public_url"}[name]
    assert getattr(load(WebSettings, **{field: "https://pictures.example/"}), field) == "https://pictures.example"
    for wrong in ("pictures.example", "https://pictures.example; script-src *"):
        with pytest.raises(SettingsError, match=name):
            load(WebSettings, **{field: wrong})
