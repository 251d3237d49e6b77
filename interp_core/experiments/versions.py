"""What a run was computed with, as its config says it."""

import platform
from importlib.metadata import version

PACKAGES = ("torch", "transformers", "numpy", "pandas", "scipy", "librosa", "soundfile")
# Asked once, while this is imported: a page that ends takes its folder out of sys.path, and a job that goes through
# sys.path at that moment misses an entry.
VERSIONS = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
