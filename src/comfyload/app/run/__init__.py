"""One run of a server: its options, what is sent, what is written down, and how it ends."""
