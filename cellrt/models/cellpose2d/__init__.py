"""Cellpose2D: flows towards the cells' centres in the plane, and foreground."""
