"""gRPC manners in one place: statuses, servers, channels, deadlines."""
