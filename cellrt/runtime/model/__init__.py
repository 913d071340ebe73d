"""The model file, which describes itself."""
