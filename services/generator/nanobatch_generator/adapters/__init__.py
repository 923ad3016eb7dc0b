"""The generator's ways to storage."""
