"""Faults on the real product: processes killed, frozen, cut off, and an independent program that checks what is left."""
