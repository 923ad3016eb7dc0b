"""Redis carries only what may be lost: hints, live percentages, counters of users' requests.

Whatever happens to it (gone, emptied, hanging), nobody waits for it longer than the limits given here.
"""

from nanobatch_runtime.redis.agreement import RedisMismatchError, identity, require_same
from nanobatch_runtime.redis.client import PREFIX, REDIS_ERRORS, open_client
from nanobatch_runtime.redis.pubsub import RedisPubSub
from nanobatch_runtime.redis.settings import RedisSettings

__all__ = [
    "PREFIX",
    "REDIS_ERRORS",
    "RedisMismatchError",
    "RedisPubSub",
    "RedisSettings",
    "identity",
    "open_client",
    "require_same",
]
