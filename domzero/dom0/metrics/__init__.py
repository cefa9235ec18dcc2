# SPDX-License-Identifier: Apache-2.0
"""What domains use: measured on demand, kept by the minute and by the hour, shown to Prometheus."""
