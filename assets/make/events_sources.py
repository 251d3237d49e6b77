"""The recordings that demo-events is made of, out of Debian packages: what each is, where it comes from, its licence.

    apt-get download tuxpaint-stamps-default gcompris-qt-data sonic-pi-samples hydrogen-drumkits fluid-soundfont-gm \\
        bucklespring-data sound-icons sound-theme-freedesktop
    for f in *.deb; do dpkg -x $f root; done          # no need to install anything

A recording's `group` is what it shares with others: one speaker's language, one drum kit, one instrument. Groups are
held out whole. Classes are as broad as the packages are: there are few recordings of any single animal or tool.
"""

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

CLASSES = ("animal", "drum", "household", "plucked", "speech", "wind")
NO_SOUND_OF_THEIRS = {"iguana", "vulture", "xanthia", "quetzal", "giraffe", "heron_greatblue_flying", "pig_golden2"}

DRUM_KITS = {  # kit: (licence, held out)
    "Millo-Drums_v.1": ("GPL-2", False),
    "Millo_MultiLayered2": ("GPL-2", False),
    "Millo_MultiLayered3": ("GPL-2", False),
    "The Black Pearl 1.0": ("GPL-2", False),
    "rumpf_kit_z01_h2": ("CC-BY-3.0", False),
    "Gimme A Hand 1.0": ("GPL-2", False),
    "VariBreaks": ("GPL-2+", False),
    "ForzeeStereo": ("GPL-2", True),
    "ColomboAcousticDrumkit": ("GPL-2+ with composition exception", True),
    "circAfrique v4": ("CC-BY-SA-3.0", True),
    "ElectricEmpireKit": ("GPL-2+", True),
}
# Instruments of the sound font by the start of their samples' names; False: held out.
PLUCKED = {
    "Nylon": True,
    "Clean": True,
    "Jazz Guitar": True,
    "Banjo": True,
    "Shamisen": True,
    "Finger Bass": True,
    "Picked Bass": True,
    "Fretless": True,
    "Harpsichord": True,
    "Pizz": True,
    "dulci": True,
    "Clavinet": True,
    "Steel": False,
    "Harp": False,
    "Koto": False,
    "sitar": False,
    "Acoustic Bass": False,
}
WIND = {
    "Alto": True,
    "Tenor": True,
    "Baritone": True,
    "E's Bassoon": True,
    "Clarinet": True,
    "Flute": True,
    "French Horns": True,
    "Recorder": True,
    "Tuba": True,
    "Piccolo": True,
    "Bagpipe": True,
    "Soprano": False,
    "Oboe": False,
    "English Horn": False,
    "trombone": False,
    "pan flute": False,
}
LANGUAGES = dict.fromkeys(("be", "bg", "ca", "el", "es", "fr"), True) | dict.fromkeys(("da", "ro", "ru"), False)
A_LANGUAGE = 40  # recordings of each
AN_INSTRUMENT = 16
A_KIT = 40
GCOMPRIS_HELD_OUT = {"door_open": "CC0-1.0", "lock": "CC-BY-3.0 MAJ061785", "water_fill": "CC-BY-3.0 inchadney"}
GCOMPRIS_HOUSEHOLD = (
    "door_open lock water_fill drip bubble audioclick water knock money1 money2 card_flip eraser1 eraser2 "
    "brush icy_walk metal_hit pickaxe LRFactory_noise_01_LA LRFactory_noise_03_LA LRFactory_noise_05_LA "
    "LRDoor_Open_2_LA LRStartAndStopCarEngine1LACut LRRing_01_LA LRObject_falling_01_LA LRObject_falling_02_LA "
    "crash brick slide eat"
).split()
SONIC_PI_HOUSEHOLD = ("perc_door", "perc_till", "loop_3d_printer", "ambi_glass_rub", "ambi_sauna", "vinyl_hiss")


@dataclass(frozen=True)
class Recording:
    """One sound: [n_samples] float32 mono at its own rate."""

    label: str
    group: str
    name: str
    package: str
    licence: str
    training: bool
    samples: np.ndarray
    rate: int


def recordings(root: Path) -> list[Recording]:
    """Read everything below the folder that the packages were unpacked into, in a fixed order."""
    found = [*_tuxpaint(root), *_gcompris(root), *_sonic_pi(root), *_drums(root), *_sound_font(root), *_others(root)]
    found = [one for one in found if len(one.samples) > 0.04 * one.rate and np.abs(one.samples).max() > 1e-3]
    found.sort(key=lambda one: (one.label, one.group, one.name))
    # Some pictures of Tux Paint share a sound: it is kept once, in training where one of them is.
    kept: dict[bytes, Recording] = {}
    for one in sorted(found, key=lambda one: not one.training):
        kept.setdefault(one.samples.tobytes(), one)
    return [one for one in found if kept[one.samples.tobytes()] is one]


def read(file: Path | io.BytesIO) -> tuple[np.ndarray, int]:
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    return samples.mean(axis=1), rate


def every_third(names: list[str]) -> set[str]:
    """The held-out ones of recordings that have no group but themselves: by order, never by what a model says."""
    return set(sorted(names)[1::3])


def _tuxpaint(root: Path) -> Iterator[Recording]:
    base = next(root.rglob("tuxpaint/stamps"))
    about = ("tuxpaint-stamps-default", "GPL-2")
    animals = [
        file
        for file in sorted((base / "animals").rglob("*.ogg"))
        if "_desc" not in file.name and not re.search(r"_[a-z]{2}$", file.stem) and file.stem not in NO_SOUND_OF_THEIRS
    ]
    held = every_third([file.stem for file in animals])
    for file in animals:
        yield Recording("animal", f"tuxpaint {file.stem}", file.stem, *about, file.stem not in held, *read(file))
    things = [
        *(file for file in sorted((base / "household").rglob("*.ogg")) if "_desc" not in file.name),
        base / "hobbies" / "camera_35mm.ogg",
    ]
    held = set(sorted(file.stem for file in things)[::2])  # as few as there are, half of them
    for file in things:
        yield Recording("household", f"tuxpaint {file.stem}", file.stem, *about, file.stem not in held, *read(file))
    for language, training in LANGUAGES.items():
        files = sorted(base.rglob(f"*_desc_{language}.ogg"))
        for file in files[:: max(1, len(files) // A_LANGUAGE)][:A_LANGUAGE]:
            name = file.stem.removesuffix(f"_desc_{language}")
            yield Recording("speech", f"tuxpaint speaker {language}", name, *about, training, *read(file))


def _gcompris(root: Path) -> Iterator[Recording]:
    for file in sorted(root.rglob("gcompris-qt/rcc/*.rcc")):
        for path, data in qt_resources(file):
            name = Path(path).stem
            animal = "explore_farm_animals" in path or name.startswith("LRBark")
            if path.endswith((".ogg", ".wav")) and (animal or name in GCOMPRIS_HOUSEHOLD):
                label = "animal" if animal else "household"
                licence = GCOMPRIS_HELD_OUT.get(
                    name, "AGPL-3+ and others"
                )  # these are heard in training, never shipped
                about = ("gcompris-qt-data", licence, name not in GCOMPRIS_HELD_OUT)
                yield Recording(label, f"gcompris {name}", name, *about, *read(io.BytesIO(data)))


def qt_resources(file: Path) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of what a Qt resource file holds uncompressed."""
    data = file.read_bytes()
    version, tree, start, names = struct.unpack(">4I", data[4:20])
    size = 22 if version >= 2 else 14

    def walk(index: int, prefix: str) -> Iterator[tuple[str, bytes]]:
        at = tree + index * size
        name_at, flags = struct.unpack(">IH", data[at : at + 6])
        if index:
            (length,) = struct.unpack(">H", data[names + name_at : names + name_at + 2])
            text = data[names + name_at + 6 : names + name_at + 6 + 2 * length].decode("utf-16-be")
            prefix = f"{prefix}/{text}"
        if flags & 2:
            count, first = struct.unpack(">2I", data[at + 6 : at + 14])
            for child in range(first, first + count):
                yield from walk(child, prefix)
        elif not flags & 5:  # neither zlib nor zstd
            (offset,) = struct.unpack(">I", data[at + 10 : at + 14])
            (length,) = struct.unpack(">I", data[start + offset : start + offset + 4])
            yield prefix, data[start + offset + 4 : start + offset + 4 + length]

    return walk(0, "")


def _sonic_pi(root: Path) -> Iterator[Recording]:
    for file in sorted(root.rglob("sonic-pi/**/samples/*.flac")):
        name, about = file.stem, ("sonic-pi-samples", "CC0")
        if name in SONIC_PI_HOUSEHOLD:
            training = name not in ("perc_till", "loop_3d_printer")
            yield Recording("household", f"sonic-pi {name}", name, *about, training, *read(file))
        elif name.startswith("drum_"):
            yield Recording("drum", "sonic-pi drum", name, *about, True, *read(file))
        elif name.startswith("tabla_"):
            yield Recording("drum", "sonic-pi tabla", name, *about, False, *read(file))
        elif name == "misc_crow":
            yield Recording("animal", "sonic-pi misc_crow", name, *about, True, *read(file))


def _drums(root: Path) -> Iterator[Recording]:
    for kit, (licence, held_out) in DRUM_KITS.items():
        folder = next(root.rglob(f"drumkits/{kit}"))
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".wav", ".flac"))
        for file in files[:: max(1, len(files) // A_KIT)][:A_KIT]:
            name = f"{kit} {file.stem}"
            yield Recording("drum", f"kit {kit}", name, "hydrogen-drumkits", licence, not held_out, *read(file))


def _sound_font(root: Path) -> Iterator[Recording]:
    file = next(root.rglob("FluidR3_GM.sf2"))
    samples_of, of = list(sound_font(file)), {"plucked": PLUCKED, "wind": WIND}
    for label, instruments in of.items():
        for instrument, training in instruments.items():
            # A stereo sample is there twice, left and right.
            mine = [one for one in samples_of if re.match(rf"{instrument}(?! Drum|sichord)", one[0])]
            named = [one for one in mine if not re.search(r"R\)?$", one[0])]
            for name, samples, rate in named[:: max(1, len(named) // AN_INSTRUMENT)][:AN_INSTRUMENT]:
                about = ("fluid-soundfont-gm", "MIT", training)
                yield Recording(label, f"fluid {instrument}", name, *about, samples, rate)


def sound_font(file: Path) -> Iterator[tuple[str, np.ndarray, int]]:
    """(name, samples, rate) of every sample of a sound font; a loop is repeated until two seconds have passed."""
    data = np.memmap(file, np.uint8, "r")
    chunks: dict[bytes, tuple[int, int]] = {}

    def walk(at: int, end: int) -> None:
        while at + 8 <= end:
            name, (size,) = bytes(data[at : at + 4]), struct.unpack("<I", bytes(data[at + 4 : at + 8]))
            if name in (b"RIFF", b"LIST"):
                walk(at + 12, at + 8 + size)
            else:
                chunks.setdefault(name, (at + 8, size))
            at += 8 + size + size % 2

    walk(0, len(data))
    at, size = chunks[b"smpl"]
    wave = data[at : at + size].view("<i2")
    at, size = chunks[b"shdr"]
    for row in range(size // 46 - 1):
        head = bytes(data[at + 46 * row : at + 46 * row + 46])
        start, stop, loop, back, rate = struct.unpack("<5I", head[20:40])
        samples = wave[start:stop].astype(np.float32) / 32768
        if back - loop > 32 and len(samples) < 2 * rate:
            turn = wave[loop:back].astype(np.float32) / 32768
            once = samples[: back - start]
            samples = np.concatenate([once, np.tile(turn, 1 + int(2 * rate - len(once)) // len(turn))])
            samples = samples * np.exp(-np.arange(len(samples)) / rate)  # held notes die away
        yield head[:20].split(b"\0")[0].decode("latin-1").strip(), samples, rate


def _others(root: Path) -> Iterator[Recording]:
    keys = sorted(root.rglob("buckle/wav/*-1.wav"))
    for file in keys[:: max(1, len(keys) // 6)][:6]:
        about = ("bucklespring-data", "GPL-2+", True)
        yield Recording("household", "bucklespring keyboard", file.stem, *about, *read(file))
    for name, licence in (("camera-shutter.oga", "CC-BY-SA-3.0"), ("trash-empty.oga", "CC-BY-3.0")):
        if found := sorted(root.rglob(f"stereo/{name}")):
            about = ("sound-theme-freedesktop", licence, True)
            yield Recording("household", f"freedesktop {name}", name, *about, *read(found[0]))
    for name in ("gummy-cat-2.wav", "cockchafer-gentleman-1.wav", "canary-long.wav", "glass-water-1.wav"):
        if found := sorted(root.rglob(f"sound-icons/{name}")):
            label = "household" if name.startswith("glass") else "animal"
            yield Recording(label, f"sound-icons {name}", name, "sound-icons", "GPL-2+", True, *read(found[0]))
