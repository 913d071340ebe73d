"""Cells and tissue as labels, before anything is stained."""
