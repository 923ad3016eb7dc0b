"""redis-py, without the SDK that it would measure itself with.

Where OpenTelemetry's SDK is installed, as it is for our traces, redis-py loads its half for metrics as well: 5 MB in every
process, for figures that are switched on by nobody here (``redis/observability/providers.py`` of 8.0). Told that it is not
there, it goes without.
"""

from __future__ import annotations

from nanobatch_runtime.imports import leaving_out

with leaving_out("opentelemetry.sdk.metrics"):
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.client import PubSub
    from redis.asyncio.connection import AbstractConnection, parse_url
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as RedisLostError
    from redis.exceptions import RedisError

__all__ = [
    "AbstractConnection",
    "BlockingConnectionPool",
    "NoBackoff",
    "PubSub",
    "Redis",
    "RedisError",
    "RedisLostError",
    "Retry",
    "parse_url",
]
