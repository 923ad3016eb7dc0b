"""The HTTP port: the same use cases as the gRPC services, for browsers and curl."""
