"""HarmonicNet: cells as spherical harmonics about their centroid."""
