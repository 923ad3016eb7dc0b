from datetime import timedelta
from pathlib import Path

from grpc._cython import cygrpc

from nanobatch_runtime.rpc import options


def test_every_option_is_one_that_grpc_knows() -> None:
    # gRPC ignores names it does not know: a wrong one would stand there for ever, and do nothing.
    library = Path(cygrpc.__file__).read_bytes()
    given = [
        *options.channel("dns:///gateway:50051"),
        *options.server("127.0.0.1:0", connection_age=timedelta(minutes=5), longest_stream=timedelta(minutes=5)),
    ]
    assert [name for name, _ in given if name.encode() not in library] == []


def test_a_server_bears_the_pings_of_its_clients() -> None:
    channel = dict(options.channel("unix:/socket"))
    server = dict(options.server("unix:/socket", connection_age=timedelta(1), longest_stream=timedelta(1)))
    assert int(server["grpc.http2.min_ping_interval_without_data_ms"]) < int(channel["grpc.keepalive_time_ms"])
