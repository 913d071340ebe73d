"""3DCellSeg: background, membrane and the inside of cells."""
