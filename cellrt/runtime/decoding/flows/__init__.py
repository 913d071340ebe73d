"""Cellpose3D's flows to labels."""
