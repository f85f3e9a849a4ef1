"""The development stack's own parts, without the application."""
