"""`models`: what ships, what can be opened, and how it is patched."""

import argparse
import textwrap
from dataclasses import replace
from typing import Any

from interp_core.cli.shared import DONE

NOTE = (
    "The fast routes are held to the reference (the model's own forward, one hook at a time) to 1e-4 in float32, on "
    "the first pairs of every run too. A decoder whose layers slide or share keys falls back from the shortcut to the "
    "wavefront by itself; each record says which route it took."
)


def add(commands: Any) -> None:
    """Add the command."""
    commands.add_parser("models", help="list bundled models and supported families").set_defaults(run=_models)


def _models(args: argparse.Namespace) -> int:
    from interp_core.models.bundled import demos
    from interp_core.models.families import Family, families
    from interp_core.sites import STAGES

    print("bundled (--model NAME, with clips of their own):")
    for demo in demos().values():
        print(f"  {demo.name:<22} {demo.title}")
    alike: dict[Family, list[str]] = {}
    for family in families():
        alike.setdefault(replace(family, name=""), []).append(family.name)
    print("\nfamilies:")
    for family, names in alike.items():
        print(textwrap.fill(", ".join(names), 100, initial_indent="  ", subsequent_indent="  "))
        seen = "causal" if family.causal else "bidirectional"
        inside = [site for site in family.sites if site not in STAGES]
        stages = [site for site in family.sites if site in STAGES]
        behind = f"; behind the blocks {', '.join(stages)}" if stages else ""
        for what, told in (
            ("--model", family.opens),
            ("sites", f"{', '.join(inside)} ({seen}){behind}"),
            ("readout", family.readout),
            ("sweep", ", ".join(family.methods)),
            ("checked on", family.verified),
        ):
            print(textwrap.fill(told, 110, initial_indent=f"    {what:<11} ", subsequent_indent=" " * 16))
    print(f"\n{textwrap.fill(NOTE, 110)}")
    return DONE
