"""The hostile test: seeded inputs that nobody means well with, and kills at any moment."""
