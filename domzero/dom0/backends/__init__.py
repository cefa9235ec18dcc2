# SPDX-License-Identifier: Apache-2.0
"""Back ends of devices: their nodes in xenstore and their policy. What moves data is `crates/backends`."""
