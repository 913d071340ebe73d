"""The preview picture."""
