# SPDX-License-Identifier: Apache-2.0
"""What Domain 0 keeps in SQLite: a file that a killed Domain 0 leaves whole."""

from domzero.dom0.database.connection import MEMORY, Database
from domzero.dom0.database.migrations import MIGRATIONS, VERSION

__all__ = ["MEMORY", "MIGRATIONS", "VERSION", "Database"]
