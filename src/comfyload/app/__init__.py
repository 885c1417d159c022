"""The verbs: the only place where the parts meet. One file a verb."""
