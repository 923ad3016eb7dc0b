"""gRPC in, one use case, gRPC out."""
