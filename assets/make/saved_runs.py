"""Makes the runs again that ship with the demos, each by its command: `python -m assets.make.saved_runs [NAME ...]`.

About fifteen minutes, on one thread: the last digits of a sum depend on how many share it. A run replaces the folder
that ships only when it has ended. `--redraw` computes nothing: it draws the pictures of the folders anew from what lies
in them, where a look has changed.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from PIL import Image

from interp_core.__main__ import main as command
from interp_core.experiments import experiment_of
from interp_core.experiments.experiment import open_result
from interp_core.experiments.figures import save_png
from interp_core.runs import read_config

ASSETS = Path(__file__).resolve().parents[1]
RUNS = {
    "demo-emotion/run": "patch --model demo-emotion --max-pairs 30",
    "demo-emotion/run-maps": "patch --model demo-emotion --max-pairs 20 --kinds prosody --controls random --flow none "
    "--map time,heads,back",
    "demo-emotion/run-steer": "steer --model demo-emotion --layers 0,2,4,6,8,10 --max-steered 20 --every-draw",
    "demo-emotion/run-probes": "probes --model demo-emotion",
    "demo-emotion-wavlm/run-ablate": "ablate --model demo-emotion-wavlm",
    "demo-emotion-wavlm/run-heads": "heads --model demo-emotion-wavlm --label prosody_label --ablate mean",
    "demo-emotion-wavlm/run-signflip": "signflip --model demo-emotion-wavlm",
    "demo-shortcut/run-ablate": "ablate --model demo-shortcut",
    "demo-spoof-erm/run-compare": "compare --model demo-spoof-erm",
    "demo-events/run-heads": "heads --model demo-events --ablate mean",
}
"""The folder below assets, and the command that makes it; on the CPU in float32."""


def pack_pictures(folder: Path) -> None:
    """Keep the pictures of a run with 128 colours, which looks the same and takes a third of the place."""
    for path in folder.glob("*.png"):
        whole = Image.open(path)
        packed = whole.convert("RGB").quantize(128, dither=Image.Dither.NONE)
        packed.save(path, optimize=True, dpi=whole.info.get("dpi", (100, 100)))


def redraw(folder: Path) -> list[str]:
    """Draw the pictures of a finished run again from its own records; the names of those that look different now."""
    result = open_result(experiment_of(read_config(folder)["command"]), folder)
    pictures = sorted(folder.glob("*.png"))
    figures = result.figures()
    if len(pictures) == len(figures) == 1:  # a run with one picture names it in its folder alone
        figures = dict(zip([pictures[0].stem], figures.values(), strict=True))
    if {path.stem for path in pictures} != figures.keys():
        raise SystemExit(f"{folder} holds {[path.name for path in pictures]}, and its run draws {[*figures]}.")
    with tempfile.TemporaryDirectory() as place:
        for name, figure in figures.items():
            save_png(figure, Path(place) / f"{name}.png")
        pack_pictures(Path(place))
        changed = [path for path in pictures if _differ(path, Path(place) / path.name)]
        for path in changed:
            shutil.copyfile(Path(place) / path.name, path)
    return [path.name for path in changed]


def _differ(one: Path, other: Path) -> bool:
    before, after = (Image.open(path).convert("RGB") for path in (one, other))
    return before.size != after.size or before.tobytes() != after.tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(RUNS))
    parser.add_argument("--redraw", action="store_true", help="the pictures alone, from the records that are there")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.names or RUNS:
        if asked.redraw:
            print(f"{name}: {', '.join(redraw(ASSETS / name)) or 'as they were'}", flush=True)
            continue
        with tempfile.TemporaryDirectory() as place:
            made = Path(place) / Path(name).name
            if code := command([*RUNS[name].split(), "--device", "cpu", "--out", str(made)]):
                raise SystemExit(f"{name}: exit code {code}")
            pack_pictures(made)
            shutil.rmtree(ASSETS / name, ignore_errors=True)
            shutil.copytree(made, ASSETS / name)
        print(f"made {name}", flush=True)


if __name__ == "__main__":
    main()
