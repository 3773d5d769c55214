"""The commands of `cvnet-engine gallery`, by what they do."""
