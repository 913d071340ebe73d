"""The flow decoder on an NVIDIA GPU, through numba; imported only where a GPU is looked for."""
