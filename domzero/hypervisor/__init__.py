# SPDX-License-Identifier: Apache-2.0
"""Ring 0's policy: host, domains, vCPUs, time, event channels, grants, hypercalls."""
