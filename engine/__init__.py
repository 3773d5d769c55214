"""The torch-free runtime: engines, images, galleries, retrieval."""
