"""The tiny encoder folders: they open, hold every weight, and answer to what they hear."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoConfig, AutoFeatureExtractor, AutoProcessor, AutoTokenizer

from tests.families.encoders import EMOTIONS, FAMILIES, SOUNDS, Family, save_clap_audio, save_wavlm, save_whisper

OUT = ("out_proj", "o_proj", "linear_out")
TEXTS = [f"This is a sound of {sound}" for sound in SOUNDS]


@pytest.fixture(scope="module", params=FAMILIES, ids=[family.name for family in FAMILIES])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, Path]:
    torch.set_num_threads(1)
    return request.param, request.param.save(tmp_path_factory.mktemp("family") / "model")


def opened(folder: Path) -> torch.nn.Module:
    """Open a folder by the class that its config names; every weight must be in the file, and none left over."""
    name = AutoConfig.from_pretrained(folder).architectures[0]
    model, loaded = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    assert not loaded["missing_keys"] and not loaded["unexpected_keys"] and not loaded["mismatched_keys"]
    return model.eval()


def tone(seconds: float, hertz: float, rate: int) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(int(hertz)).standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * hertz * time) + 0.02 * noise).astype(np.float32)


def answer(family: Family, folder: Path, model: torch.nn.Module, samples: np.ndarray) -> torch.Tensor:
    """The last thing that the library's own forward gives: logits, or the pooled or mean state where there are none."""
    np.random.seed(0)  # CLAP's front end draws its crops
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    inputs = dict(extractor(samples, sampling_rate=family.rate, return_tensors="pt"))
    if family.reads == "words":
        inputs.pop("audio_chunk_index", None)
        made = model.generation_config
        start = made.decoder_start_token_id or model.config.decoder_start_token_id or made.bos_token_id
        inputs["decoder_input_ids"] = torch.tensor([[start, 7, 8]])
    if family.reads == "texts":
        inputs |= dict(AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt"))
    with torch.no_grad():
        out = (model.encoder if family.name == "parakeet-tdt" else model)(**inputs)
    if family.reads == "nothing" and "logits" not in out:  # a head that is left out later has them
        pooled = getattr(out, "pooler_output", None)
        return out.last_hidden_state.mean(1) if pooled is None else pooled
    return out.logits_per_audio if family.reads == "texts" else out.logits


def test_every_family_opens_whole_and_tells_two_tones_apart(saved):
    family, folder = saved
    model = opened(folder)
    low, high, again = (answer(family, folder, model, tone(1.2, hertz, family.rate)) for hertz in (220, 1400, 220))
    assert torch.isfinite(low).all() and torch.isfinite(high).all()
    assert (low - high).abs().max() > 1e-2, "the model hears no difference"
    assert torch.equal(low, again), "the same clip must give the same answer"
    assert low.abs().max() < 1e3, "weights this large leave no float32 digits for a comparison"


def test_no_attention_is_idle(saved):
    family, folder = saved
    model = opened(folder)
    samples = tone(1.2, 300, family.rate)
    whole = answer(family, folder, model, samples)
    tried = 0
    for name, part in model.named_modules():
        if not (name.endswith((".attention", "attn")) and name.rsplit(".", 2)[-2].isdigit()):
            continue
        out = part.output.dense if hasattr(part, "output") else next(getattr(part, n) for n in OUT if hasattr(part, n))
        kept = out.weight.detach().clone()
        with torch.no_grad():
            out.weight.zero_()
            moved = (answer(family, folder, model, samples) - whole).abs().max()
            out.weight.copy_(kept)
        assert moved > 1e-3, f"{name} adds nothing that shows"
        tried += 1
    assert tried >= 3


def test_no_weight_is_left_at_its_start(saved):
    model = opened(saved[1])
    still = [name for name, weight in model.named_parameters() if weight.numel() > 1 and weight.std() < 1e-3]
    assert still == []
    spread = [value.std() for name, value in model.named_buffers() if name.endswith(("running_mean", "running_var"))]
    assert all(value > 1e-3 for value in spread)


def test_folders_hold_what_real_ones_hold(saved):
    family, folder = saved
    held = {file.name for file in folder.iterdir()}
    extractor = "processor_config.json" if family.name == "canary" else "preprocessor_config.json"
    assert {"config.json", "model.safetensors", extractor} <= held
    pieces = family.name == "speech2text" or family.name.startswith("seamless")
    words = "sentencepiece.bpe.model" if pieces else "tokenizer.json"
    words = "spm_char.model" if family.name == "speecht5" else words
    assert (words in held) == (family.reads in ("words", "texts"))
    assert ("generation_config.json" in held) == (
        family.reads == "words" or family.name in ("parakeet", "parakeet-tdt")
    )
    config = AutoConfig.from_pretrained(folder)
    if family.reads == "classes":
        assert tuple(config.id2label.values()) in (EMOTIONS, SOUNDS)


def test_one_seed_makes_one_model_and_another_seed_another(tmp_path):
    first, again, other = (save_wavlm(tmp_path / str(i), seed=seed, n_layers=1) for i, seed in enumerate((3, 3, 4)))
    weights = [(folder / "model.safetensors").read_bytes() for folder in (first, again, other)]
    assert weights[0] == weights[1] != weights[2]


def test_sizes_are_the_callers(tmp_path):
    config = AutoConfig.from_pretrained(
        save_wavlm(tmp_path / "a", n_layers=2, d_model=16, n_heads=2, labels=["no", "yes"])
    )
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (2, 16, 2)
    assert config.id2label == {0: "no", 1: "yes"}
    clap = AutoConfig.from_pretrained(save_clap_audio(tmp_path / "b", depths=(1, 2, 1), heads=(2, 2, 4), width=8))
    assert (list(clap.depths), clap.hidden_size) == ([1, 2, 1], 32)


def test_the_whisper_folder_speaks_like_a_real_one(tmp_path):
    folder = save_whisper(tmp_path / "whisper")
    processor = AutoProcessor.from_pretrained(folder)
    words = processor.tokenizer
    assert type(words).__name__ == "WhisperTokenizer"
    prompt = [
        words.convert_ids_to_tokens(id) for _, id in words.get_decoder_prompt_ids(language="german", task="transcribe")
    ]
    assert prompt == ["<|de|>", "<|transcribe|>", "<|notimestamps|>"]
    for word in (*EMOTIONS, *SOUNDS):
        assert len(words(" " + word, add_special_tokens=False).input_ids) == 1
    model = opened(folder)
    features = processor(tone(1.0, 300, 16_000), sampling_rate=16_000, return_tensors="pt").input_features
    made = model.generate(features, language="en", task="transcribe", max_new_tokens=4)
    assert made.shape[0] == 1 and set(made[0].tolist()) <= set(range(len(words)))


def test_a_base_models_padding_changes_the_answer_and_a_large_ones_does_not(tmp_path):
    """The reason why base models are run one clip at a time; the control shows that the mask itself works."""
    short, long = tone(0.6, 300, 16_000), tone(1.1, 800, 16_000)
    gaps = {}
    for name, stable in (("base", False), ("large", True)):
        folder = save_wavlm(tmp_path / name, stable=stable)
        model = opened(folder)
        extractor = AutoFeatureExtractor.from_pretrained(folder)
        both = extractor(
            [short, long], padding=True, return_attention_mask=True, return_tensors="pt", sampling_rate=16_000
        )
        alone = extractor(short, return_tensors="pt", sampling_rate=16_000)
        with torch.no_grad():
            gaps[name] = (model(**both).logits[0] - model(input_values=alone.input_values).logits[0]).abs().max().item()
    assert gaps["large"] < 1e-4 < 1e-2 < gaps["base"]
