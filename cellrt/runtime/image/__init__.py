"""Any input becomes a volume."""
