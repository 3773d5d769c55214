"""Commands of `cvnet-engine gallery`."""
