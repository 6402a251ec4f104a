"""gw-cli."""
