"""A server that sends whatever it likes, over raw sockets, and every command held against it."""
