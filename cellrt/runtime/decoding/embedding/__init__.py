"""Pixel embeddings and mean shift: pixels of one object lie together in another space."""
