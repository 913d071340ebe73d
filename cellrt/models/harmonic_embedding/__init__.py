"""Harmonic embeddings: each pixel learns the mean of waves over the object it belongs to."""
