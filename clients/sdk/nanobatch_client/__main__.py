"""``python -m nanobatch_client`` is the command ``nanobatch``."""

from nanobatch_client.cli.main import main

main()
