"""Load test of `cvnet-engine serve`: latency, refusals, and lost requests."""
