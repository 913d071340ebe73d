"""StarDist 3D: object probability, and radii along rays from every voxel."""
