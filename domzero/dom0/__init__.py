"""Domain 0: xenstore, backends, lifecycle, HTTP API."""
