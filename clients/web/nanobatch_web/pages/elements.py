"""Our own elements (assets/*.js) as Gradio components: a value goes in, ``change`` comes out."""

from __future__ import annotations

from typing import Any

import gradio as gr

# Gradio fires `change` for values that come from the server as well; `input` is only what a person did.
# `properties.value` of the element follows the component's value, and its events become the component's.
_BRIDGE = """
const inner = element.querySelector('[data-nb]');
const give = () => { inner.value = props.value; };
give();
watch('value', give);
inner.addEventListener('nb-change', (event) => { props.value = event.detail; trigger('change'); trigger('input'); });
inner.addEventListener('nb-submit', (event) => { props.value = event.detail; trigger('submit'); });
"""


def element(name: str, value: dict[str, Any] | None = None, *, elem_id: str | None = None) -> gr.HTML:
    """Return a component that holds one of our elements."""
    return gr.HTML(
        value=value or {},
        html_template=f"<{name} data-nb></{name}>",
        js_on_load=_BRIDGE,
        elem_id=elem_id,
        apply_default_css=False,
    )
