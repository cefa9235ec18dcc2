# SPDX-License-Identifier: Apache-2.0
"""Every source file says what its licence is."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINE = "SPDX-License-Identifier: Apache-2.0"
SOURCES = ["*.py", "*.pyi", "*.rs", "*.c", "*.h", "*.S", "*.ld", "*.sh", "*.js", "*.css", "*.html", "*.svg"]
VENDORED = "domzero/dom0/web/static/vendor/"
"""Others' sources, as they are: each has its licence beside it."""


def test_every_source_file_names_its_licence_in_its_first_lines() -> None:
    command = ["git", "ls-files", "-co", "--exclude-standard", *SOURCES]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = [name for name in names if (ROOT / name).is_file() and not name.startswith(VENDORED)]
    assert len(files) > 300
    without = [name for name in files if not any(LINE in line for line in (ROOT / name).read_text().split("\n", 3)[:3])]
    assert without == [], f"put `{LINE}` into a comment in the first line"
