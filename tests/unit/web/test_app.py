"""The page as it is put together."""

from nanobatch_runtime.settings import load
from nanobatch_web.app import make_app
from nanobatch_web.settings import WebSettings


def test_nothing_warns_of_itself_when_the_page_starts():
    make_app(load(WebSettings), 7860)  # a warning is an error here: whoever types `make run` would see it
