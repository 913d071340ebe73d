"""The parity gate: whether a graph finds the cells it should, before it is written."""
