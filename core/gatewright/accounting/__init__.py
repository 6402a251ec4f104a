"""What a request cost and how it went."""
