"""The Flask application (not built yet)."""
