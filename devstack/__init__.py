"""The full stack on one machine without Docker, for development and tests."""
