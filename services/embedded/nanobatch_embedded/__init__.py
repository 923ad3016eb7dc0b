"""All services in one process, and the server's commands."""
