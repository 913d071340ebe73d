"""TensorRT and TensorRT-RTX: one room for both."""
