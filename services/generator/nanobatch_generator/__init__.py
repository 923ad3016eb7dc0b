"""The generator: leases results, calls providers, verifies pictures, hands them to storage, streams progress."""
