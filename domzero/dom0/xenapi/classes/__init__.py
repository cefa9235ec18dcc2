# SPDX-License-Identifier: Apache-2.0
"""XenAPI's classes: fields and messages, and where values come from."""
