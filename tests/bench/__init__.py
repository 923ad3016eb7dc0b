"""`make bench`: what nanobatch costs, as ratios against a bare script or an ideal in the same run."""
