"""What this machine has, and how its GPU is used."""
