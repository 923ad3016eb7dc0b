"""What every nanobatch service shares: errors and gRPC manners, keys, pictures, time. It knows no contract of ours."""

import os

# gRPC reads this when it is imported. We start children by exec only (picture checks), so it needs no fork handlers;
# with them it writes a line to stderr at every start of one.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
