"""Cells as radii along directions from a centre: spherical harmonics, star-convex shapes."""
