"""Looking after a gallery: one module a command of `cvnet-engine gallery`."""
