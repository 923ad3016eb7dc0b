from nanobatch_web import texts
from nanobatch_web.pages import site
from nanobatch_web.pages.context import Context
from nanobatch_web.viewers import Viewers


def test_no_page_holds_a_connection_open() -> None:
    """Browsers open six to a host: with Gradio's heartbeat (gr.State, unload handlers) the seventh tab stays blank."""
    translate = site.gr.I18n(**{language: texts.table(language) for language in texts.LANGUAGES})
    built = site.build(Context(Viewers("127.0.0.1:1", token_mode=False), translate))
    assert built.get_config_file()["connect_heartbeat"] is False
