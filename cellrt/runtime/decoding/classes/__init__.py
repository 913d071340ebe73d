"""3DCellSeg's class map to labels: background, membrane and the inside of cells."""
