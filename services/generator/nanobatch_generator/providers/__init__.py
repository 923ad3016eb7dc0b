"""Providers: one company's way to make a picture, one file (or family of files) each."""
