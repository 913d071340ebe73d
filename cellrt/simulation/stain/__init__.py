"""What is stained, and how brightly."""
