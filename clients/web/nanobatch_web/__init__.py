"""The web front end: a wizard, live boards, galleries. It talks to the gateway by gRPC only, through the SDK."""

import os

from nanobatch_web import quick_gradio

# Before anything imports Gradio: without it, it looks up two hosts outside. Exactly this spelling counts.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
quick_gradio.install()
