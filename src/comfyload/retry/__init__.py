"""How a job that failed is tried again, and when it is not: the policy, and the client that carries it out."""
