"""Tracing and inspection."""
