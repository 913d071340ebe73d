"""What label images say beyond cells (above 0) and background (0)."""

from __future__ import annotations

UNKNOWN = -1
"""Label of voxels that do not count: outside the stack, or unlabelled in sparse ground truth."""
