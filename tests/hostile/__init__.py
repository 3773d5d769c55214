"""Hostile tests: seeded malicious or damaged input, and kills at random moments."""
