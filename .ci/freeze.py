"""Write the versions of the active environment as a constraints file, or print where they differ from one.

python .ci/freeze.py > .ci/constraints.txt
python .ci/freeze.py --compare .ci/constraints.txt
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

#: hashzoo itself, the installers, and what belongs to the CUDA build of torch, which pins it.
LEFT_OUT = re.compile(r"hashzoo|pip|setuptools|wheel|uv|triton|(nvidia|cuda)-.*")
HEAD = "# Versions of an environment of the checks, written by .ci/freeze.py: pip install -c .ci/constraints.txt ..."


def versions() -> dict[str, str]:
    """The installed versions by normalized name, without the part behind ``+``."""
    found = {re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower(): one.version for one in distributions()}
    return {name: found[name].split("+")[0] for name in sorted(found) if not LEFT_OUT.fullmatch(name)}


def main(arguments: list[str]) -> int:
    """Print the constraints; with ``--compare FILE``, the lines that differ from the file."""
    lines = [f"{name}=={version}" for name, version in versions().items()]
    if arguments[:1] == ["--compare"]:
        known = dict(line.split("==") for line in Path(arguments[1]).read_text().splitlines() if "==" in line)
        differing = [line for line in lines if known.get(line.split("==")[0]) != line.split("==")[1]]
        print("\n".join(differing) if differing else f"the same versions as in {arguments[1]}")
    else:
        print("\n".join([HEAD, f"# Python {sys.version_info[0]}.{sys.version_info[1]}", *lines]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
