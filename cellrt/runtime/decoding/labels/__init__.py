"""Kernels on label images, for every family of decoders."""
