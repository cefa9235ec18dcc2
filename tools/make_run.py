"""`make run`, once everything is installed: see domzero.cli.demo."""

import sys

from domzero.cli.demo import main

if __name__ == "__main__":
    sys.exit(main())
