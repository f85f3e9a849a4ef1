"""The entry points: settings, the API's wiring, processes and their commands."""
