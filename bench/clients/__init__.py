"""The clients that are compared: each runs as a process of its own and does the same for a job.

It encodes a graph of 12 KB with a new seed, POSTs it, follows its 20 messages on a WebSocket to the end, GETs its
history of 14 KB and keeps one line of JSON.
"""
