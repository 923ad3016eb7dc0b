"""Runs as browsers see them: one upstream watch per run, and deltas for everybody who looks on."""
