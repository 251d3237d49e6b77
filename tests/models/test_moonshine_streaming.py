"""Moonshine's streaming models: blocks that see a few positions, clips filled up to whole frames, the last position."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from interp_core.errors import InterpError
from interp_core.models.load import open_model
from interp_core.trace.clean import clean_runs, prompt_clip
from interp_core.trace.generate import Row, generate
from interp_core.trace.patch import SiteSpec
from interp_core.trace.sweep import sweep
from tests.families.encoders import save_moonshine_streaming
from tests.families.subjects import tone
from tests.models.conftest import Open, refused
from tests.models.test_writing import cut
from tests.trace.cases import truncated
from tests.trace.naive import gap


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("n_samples", [8000, 8040, 8080, 8161, 12_850])
def test_answer_and_text_are_the_librarys_from_whole_frames_and_their_mask(
    part: str, n_samples: int, open_once: Open
) -> None:
    one = open_once(f"streaming-{part}")
    subject, hf = one.subject, one.subject.hf
    samples = tone(0.9, 300, 16_000)[:n_samples]
    stem = prompt_clip(subject, samples, "<s>", "a")
    # As the library's processor asks its extractor.
    heard = dict(
        subject.extractor(  # type: ignore[attr-defined]
            samples, sampling_rate=16_000, padding=True, pad_to_multiple_of=80, return_tensors="pt"
        )
    )
    assert int(heard["attention_mask"].sum()) == n_samples and heard["input_values"].shape[1] % 80 == 0
    (run,) = clean_runs(subject, [stem])
    with torch.inference_mode():
        assert gap(run.logits, hf(**heard, decoder_input_ids=torch.tensor([[1]])).logits[0, -1]) < 1e-5
        wrote = hf.generate(**heard, max_new_tokens=8)[0].tolist()
        unmasked = hf(heard["input_values"], decoder_input_ids=torch.tensor([[1]])).logits[0, -1]
    assert wrote[0] == 1 and generate(subject, [Row(stem)], 8)[0].tokens == cut(wrote[1:], hf)
    assert gap(run.logits, unmasked) > 1e-3  # control: without a mask every block sees the whole clip
    if part == "encoder":
        frames = -(-n_samples // 80)
        assert stem.audio == (0, -(-frames // 4)) and stem.seconds_per_position == 0.02


def test_a_block_sees_no_further_than_its_window(open_once: Open) -> None:
    """An edit behind a position reaches it only as far as the windows of the blocks behind the edit look ahead."""
    subject = open_once("streaming-encoder").subject
    assert subject.sizes.sliding_windows == [[4, 2], [4, 0]]
    samples = tone(0.5, 300, 16_000)
    changed = samples.copy()
    changed[4800:] = 0  # from frame 60 on, which is position 15
    runs = [clean_runs(subject, [prompt_clip(subject, one, "<s>", "a")])[0] for one in (samples, changed)]
    for point, ahead in enumerate((0, 1, 1)):  # (4, 2) looks one position ahead, (4, 0) none
        moved = (runs[0].resid[point] - runs[1].resid[point]).abs().amax(-1) > 1e-5
        assert int(moved.nonzero()[0]) == 15 - ahead, point


def test_clips_of_one_number_of_frames_share_a_batch_though_their_last_one_is_filled_up(open_once: Open) -> None:
    subject = open_once("streaming-encoder").subject
    stems = [prompt_clip(subject, tone(0.6, h, 16_000)[:n], "<s>", str(n)) for n, h in ((8001, 300), (8079, 500))]
    alone = [clean_runs(subject, [stem], subject.kinds)[0] for stem in stems]
    for run, single in zip(clean_runs(subject, stems), alone, strict=True):
        assert gap(run.logits, single.logits) < 1e-5
    labels = subject.labels(["happy", "sad"], "<s>")
    for kind in ("resid_post", "attn_out", "head_out", "mlp_act"):
        spec = SiteSpec(kind, layers=(0, 1))  # type: ignore[arg-type]
        both = [truncated(*alone), truncated(*alone[::-1])]
        fast, reference = (sweep(subject, both, labels, spec, method=m).label_logits for m in ("fast", "reference"))
        assert gap(fast, reference) < 1e-4, kind


def test_a_clip_is_as_long_as_there_are_positions_for_the_decoder(open_once: Open) -> None:
    for part in ("encoder", "decoder"):
        subject = open_once(f"streaming-{part}").subject
        assert subject.max_seconds == 64 * 0.02
        fits = prompt_clip(subject, np.resize(tone(0.5, 300, 16_000), round(1.28 * 16_000)), "<s>", "a")
        assert clean_runs(subject, [fits])[0].logits.isfinite().all()
        with pytest.raises(InterpError, match="clip 'b'"):
            longer = np.resize(tone(0.5, 300, 16_000), round(1.3 * 16_000))
            clean_runs(subject, [prompt_clip(subject, longer, "<s>", "b")])  # control


def test_folders_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    folder = save_moonshine_streaming(tmp_path / "model")
    file = folder / "config.json"
    whole = json.loads(file.read_text())
    for change in ({"hidden_size": 64}, {"frame_ms": 2.5}):
        file.write_text(json.dumps({**whole, "encoder_config": {**whole["encoder_config"], **change}}))
        assert "do not fit its config: model." in refused(folder)
    file.write_text(json.dumps(whole))
    assert open_model(str(folder), device="cpu").default_prompts == ("<s>",)
    (folder / "tokenizer.json").unlink()
    assert "tokenizer of " in refused(folder)
