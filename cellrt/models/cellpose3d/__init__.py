"""Cellpose3D: flows towards the cells' centres, and foreground."""
