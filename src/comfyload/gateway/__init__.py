"""ComfyUI's own protocol in front of one server or several: retries, admission and failover for any application."""
