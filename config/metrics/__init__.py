"""What the process tells Prometheus, on a port of its own. No label holds what a client chose."""
