"""The command ``nanobatch``: one file per noun, helpers beside them. Nothing here loads gRPC before a call is made."""
