"""Domain 0's HTTP API, version 1."""
