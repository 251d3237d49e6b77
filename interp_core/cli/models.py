"""`models`: what ships, what can be opened, and how it is patched."""

import argparse
from typing import Any

from interp_core.cli.shared import DONE


def add(commands: Any) -> None:
    """Add the command."""
    commands.add_parser("models", help="list bundled models and supported families").set_defaults(run=_models)


def _models(_args: argparse.Namespace) -> int:
    from interp_core.models.arch import ARCHS, SITE_MODULES
    from interp_core.models.bundled import demos

    print("bundled:")
    for demo in demos().values():
        print(f"  {demo.name:<20} {demo.title}")
    print("families (--model takes a folder or hub id of these types):")
    for name, arch in ARCHS.items():
        methods = "shortcut, wavefront, reference" if arch.causal else "wavefront, reference"
        print(f"  {name:<20} {'causal' if arch.causal else 'bidirectional'}; sites {', '.join(SITE_MODULES)};")
        print(f"  {'':<20} readout: first answer token, among the labels; methods: {methods}")
    return DONE
