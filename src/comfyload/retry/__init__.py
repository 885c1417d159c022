"""Retries: the policy, and the client that follows it."""
