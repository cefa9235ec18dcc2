# SPDX-License-Identifier: Apache-2.0
"""`domzero xl`: xl's verbs, options, texts and exit statuses, on Domain 0's HTTP API."""
