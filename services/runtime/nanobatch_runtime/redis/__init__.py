"""Redis carries only what may be lost: hints, live percentages, counters of users' requests.

Whatever happens to it (gone, emptied, hanging), nobody waits for it longer than the limits given here.

Importing this loads no client: that takes a tenth of a second and 10 MB (it brings OpenTelemetry's metrics along), and a
process without Redis has no use for it. What does need it lies in :mod:`.client` and :mod:`.pubsub`, and is imported where
there is a Redis.
"""

from nanobatch_runtime.redis.agreement import RedisMismatchError, identity, require_same
from nanobatch_runtime.redis.settings import RedisSettings

__all__ = ["RedisMismatchError", "RedisSettings", "identity", "require_same"]
