"""The domzero command."""
