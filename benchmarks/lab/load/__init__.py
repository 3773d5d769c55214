"""`cvnet-engine serve` under load: what a client waits, what is refused, and that nothing is lost."""
