"""gRPC manners in one place: statuses, servers, channels, deadlines."""

import os

# Before grpc is imported anywhere: we start children by exec only (picture checks), so gRPC needs no fork handlers; with
# them it writes a line to stderr at every start of one.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
