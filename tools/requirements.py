# SPDX-License-Identifier: Apache-2.0
"""Prints what pyproject.toml requires, with the extras that are named: pip input without building the package."""

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
for requirements in [project["dependencies"], *(project["optional-dependencies"][name] for name in sys.argv[1:])]:
    print("\n".join(requirements))
