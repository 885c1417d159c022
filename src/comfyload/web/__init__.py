"""The dashboard: one page over the files that exist, served by `comfyload ui` and by a gateway."""
