"""Labelled stacks, from files or simulated, and patches drawn from them."""
