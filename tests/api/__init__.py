"""The HTTP side, a file an endpoint, through a real server in this process."""
