"""How large cells are: in one image, and in the images of a run."""
