"""Every decoder against whatever can come: no error but its own, no hang, no heap of memory."""
