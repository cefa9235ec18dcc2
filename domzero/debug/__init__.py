# SPDX-License-Identifier: Apache-2.0
"""Tracing and inspection."""
