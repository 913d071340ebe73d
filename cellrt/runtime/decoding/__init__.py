"""From a network's fields to labels: one room per family of decoders."""
