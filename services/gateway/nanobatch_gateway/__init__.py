"""The gateway: the only public door. Authenticates, validates everything at once, encrypts keys, relays; keeps no state."""
