"""All tests in two processes side by side: those that run Snakemake, and the others. `make test` calls it.

    python tests/halves.py [pytest's arguments]

What runs Snakemake waits for jobs to start half of the time; the others are one busy process. Together they take
three quarters of the time that they take one after the other.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile


def main(arguments: list[str]) -> int:
    """Run both halves; 0 when both pass. The output of the second is printed when the first has ended."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as quiet:
        others = subprocess.Popen([*pytest, "-m", "not dag"], stdout=quiet, stderr=subprocess.STDOUT)
        try:
            first = subprocess.run([*pytest, "-m", "dag"]).returncode
            second = others.wait()
        finally:
            others.kill()
        quiet.seek(0)
        sys.stdout.write(quiet.read())
    return first or second


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
