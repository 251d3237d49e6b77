"""Print the oldest version that pyproject.toml allows of every dependency, and of the extras that are named.

python .ci/oldest.py words cluster     # for pip: one requirement a line
"""

import re
import sys
import tomllib
from pathlib import Path


def oldest(requirement: str) -> str:
    """`name>=1.2,<3` as `name==1.2`; what has no lower bound as it is."""
    bound = re.match(r"([\w.-]+)(?:>=)([\w.]+)", requirement)
    return f"{bound[1]}=={bound[2]}" if bound else requirement


project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
extras = project["optional-dependencies"]
asked = [*project["dependencies"], *(one for name in sys.argv[1:] for one in extras[name])]
print("\n".join(map(oldest, asked)))
