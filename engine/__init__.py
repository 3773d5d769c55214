"""The torch-free runtime: sessions, images, galleries, retrieval."""
