"""The version and nothing else, so that whoever states it imports nothing."""

__version__ = "0.1.0"
