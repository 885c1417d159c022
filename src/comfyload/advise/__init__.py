"""What the numbers say to do: how much a server can carry, and how to retry."""
