# SPDX-License-Identifier: Apache-2.0
"""`python -m domzero`."""

import sys

from domzero.cli.main import main

sys.exit(main())
