# SPDX-License-Identifier: Apache-2.0
"""Domain 0's web page: plain ES modules and one style sheet under `static`, which talk to the API alone."""
