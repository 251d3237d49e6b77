"""Makes assets/demo-emotion again: speech, model, clips, numbers. Run from anywhere:

    apt-get install libespeak-ng1 espeak-ng-data flite    # Debian 12; flite only for one number of the data card
    python assets/make/demo_emotion.py                    # 2 free cores: 4 minutes of speech, 20 of training

Needs what requirements.txt installs, a C++ compiler for torch.compile, and 6 GB of memory. Clips come out
equal to the bit with one version of espeak-ng; weights do not on another processor. DATA_CARD.md is written by hand:
put the numbers of a new metrics.json in it.
"""

import argparse
import json
import os
from pathlib import Path

# Two OpenMP threads that spin while they wait for a third process can be 10 times slower; set before torch comes in.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import torch
from emotion_clips import browse_clips, write_clips
from emotion_data import draw_readings, held_out_voices, record_all, sentences, training_voices
from emotion_model import PROMPTS, build_model, build_processor
from emotion_packing import Packer, packing_error
from emotion_report import measure, versions
from emotion_train import Schedule, accuracies, extract, train
from speech import EMOTIONS, SAMPLE_RATE
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

FOLDER = Path(__file__).parents[1] / "demo-emotion"
DEMO = {
    "title": "Emotion: the voice or the words?",
    "description": "A tiny Qwen2-Audio (3.4 million parameters) trained on synthesised speech. Asked for the emotion, "
    "it answers the voice's, or the words' where the voice is neutral; asked to judge one of them, it does. "
    "It knows 50 phrases of English and no human speech.",
    "labels": list(EMOTIONS),
    "prompts": [{"name": name, "text": text} for name, text in PROMPTS.items()],
    "sample_rate": SAMPLE_RATE,
    "manifest": "manifest.csv",
    "model": "model",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=22_000, help="training recordings (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help="training steps of 32 clips (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(2)

    clips = browse_clips()
    write_clips(clips, arguments.out)
    (arguments.out / "demo.json").write_text(json.dumps(DEMO, indent=2) + "\n")

    processor = build_processor()
    trained, held_out = sentences()
    corpus = extract(*record_all(draw_readings(arguments.clips, trained, training_voices(), seed=1)), processor)
    check = extract(*record_all(draw_readings(1000, held_out, held_out_voices(), seed=2)), processor)
    model, packer = build_model(processor, seed=0), Packer(processor)
    model.set_attn_implementation("eager")  # faster to train here than the fused kernel; not kept in the folder
    some = clips[::17]
    error = packing_error(model, processor, [c.reading for c in some], [c.samples for c in some])
    assert error < 1e-3, f"packed training would not be what the library computes: logits differ by {error:.1e}"

    def at_checkpoint(step: int) -> None:
        print(f"held-out voices and sentences at step {step}:", accuracies(model, packer, check), flush=True)
        save(model, processor, arguments.out / "model")

    schedule = Schedule(steps=arguments.steps, decay_steps=max(1, arguments.steps * 3 // 10))
    train(model, packer, corpus, schedule=schedule, batch_size=32, seed=0, every=200, at_checkpoint=at_checkpoint)
    write_metrics(arguments.out, clips)


def save(model: Qwen2AudioForConditionalGeneration, processor: Qwen2AudioProcessor, folder: Path) -> None:
    """Writes the folder as Qwen2-Audio's own is laid out, weights in float16; model is left as it is."""
    half = {name: weight.half() for name, weight in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=half)
    processor.save_pretrained(folder)


def write_metrics(out: Path, clips: list) -> None:
    """Loads the written folder as anybody would and writes metrics.json."""
    processor = AutoProcessor.from_pretrained(out / "model", local_files_only=True)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(
        out / "model", dtype=torch.float32, local_files_only=True
    ).eval()
    metrics = {
        "accuracy": measure(model, processor, clips),
        "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": versions(),
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    main()
