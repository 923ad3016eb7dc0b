"""What the generator serves."""
