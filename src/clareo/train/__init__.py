"""Training: a stream of degraded pairs and one loop for every system."""
