"""A small gateway for tests of what is built on the SDK: the real contract over a real port, everything in memory.

A run plays by itself. Words in a prompt say what happens to its pictures: ``[fail]`` fails, ``[hold]`` stays in
PROCESSING until :meth:`ScriptedGateway.release`, and ``[invalid-key]``, ``[cap]``, ``[quota]``, ``[gone]`` pause the
execution.
"""

from nanobatch_client.testing.gateway import ScriptedGateway
from nanobatch_client.testing.statuses import make_status

__all__ = ["ScriptedGateway", "make_status"]
