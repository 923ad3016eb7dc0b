"""What the use cases need, over gRPC, HMAC and the picture checker. Only wiring.py names what is in here."""
