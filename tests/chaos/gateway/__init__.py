"""Trouble for the gateway: it is killed, its servers are killed, the network is bad, and there is too much to do."""
