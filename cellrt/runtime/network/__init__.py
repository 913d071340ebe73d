"""The network over tiles."""
