"""SQL and files behind the ports, one file per technology and port."""
