"""Edits of ONNX graphs, without torch."""
