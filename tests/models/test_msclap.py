"""msclap's weight files against a plain HTS-AT, and its front end against librosa."""

from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertTokenizer, ClapAudioConfig, ClapAudioModel, GPT2Tokenizer

from interp_core.errors import InterpError
from interp_core.models.clap.msclap import FrontEnd, audio_names, msclap_features, open_msclap
from tests.families.encoder_words import bpe
from tests.models.msclap_plain import PlainHTSAT, random_clap, save_clap

TEXTS = ["this is the sound of dog", "this is the sound of rain and a siren", "laughter"]


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory) -> Path:
    vocab, merges = bpe(299)
    folder = tmp_path_factory.mktemp("gpt2")
    GPT2Tokenizer(vocab={**vocab, "<|endoftext|>": len(vocab)}, merges=merges).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory) -> Path:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(" ".join(TEXTS).split())]
    folder = tmp_path_factory.mktemp("bert")
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    return folder


def pictures(n: int = 2, frames: int = 100, n_mels: int = 16) -> torch.Tensor:
    return torch.randn(n, 1, frames, n_mels, generator=torch.Generator().manual_seed(9)) * 10 - 30


GEOMETRIES = {
    "three stages": {},
    "four stages, 2-2-6-2": dict(picture=128, n_mels=64, patch=8, depths=(2, 2, 6, 2), heads=(1, 2, 4, 8)),
    "uneven, wide windows": dict(picture=64, n_mels=32, depths=(1, 3), heads=(2, 4), window=4, width=12),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_embedding_stages_and_every_head_are_the_plain_nets(tmp_path, name):
    torch.set_num_threads(1)
    clap = random_clap(text=None, **GEOMETRIES[name])
    model = open_msclap(save_clap(tmp_path / "weights.pth", clap))
    mels = pictures(n_mels=clap.htsat.bn0.num_features)
    encoder, seen = model.audio_model.audio_encoder, {}

    def keep(key):
        return lambda module, args, out: seen.update({key: out})

    blocks = [block for stage in encoder.layers for block in stage.blocks]
    for i, block in enumerate(blocks):
        block.attention.self.register_forward_hook(keep(("heads", i)))
    for i, stage in enumerate(encoder.layers):
        stage.register_forward_hook(keep(("stage", i)))
    with torch.no_grad():
        embedded = model.audio_embeds(mels)
        pooled, stages, heads = clap.htsat(mels)
        assert torch.allclose(embedded, clap.audio_encoder.projection(pooled), rtol=1e-4, atol=1e-5)
    assert torch.allclose(model.audio_model(mels).pooler_output, pooled, rtol=1e-4, atol=1e-5)
    for i, expected in enumerate(stages):
        assert torch.allclose(seen["stage", i][0], expected, rtol=1e-4, atol=1e-4)
    plain_blocks = [block for stage in clap.htsat.layers for block in stage.blocks]
    for i, (expected, block) in enumerate(zip(heads, plain_blocks, strict=True)):
        # The library cuts the rolled grid into windows; put every token back where the plain net has it.
        g, w, s = block.grid, block.window, block.shift
        grid = (
            seen["heads", i][0].view(len(mels), g // w, g // w, w, w, -1).transpose(2, 3).reshape(len(mels), g, g, -1)
        )
        tokens = torch.roll(grid, (s, s), (1, 2)).flatten(1, 2)
        assert torch.allclose(tokens, expected.transpose(1, 2).flatten(2), rtol=1e-4, atol=1e-4)
    assert (embedded[0] - embedded[1]).abs().max() > 1e-2  # control: the net does hear the difference


def test_pictures_that_do_not_fit_are_refused(tmp_path):
    model = open_msclap(save_clap(tmp_path / "weights.pth", random_clap(text=None)))
    assert model.audio_embeds(pictures(frames=256)).shape == (2, 12)
    for wrong in (pictures(frames=257), pictures(n_mels=17), pictures()[0]):
        with pytest.raises(InterpError, match="at most 256 frames"):
            model.audio_embeds(wrong)


def test_two_weights_exchanged_move_the_embedding(tmp_path):
    """Control of the comparison above."""
    clap = random_clap(text=None)
    a, b = (f"audio_encoder.base.htsat.layers.0.blocks.{i}.mlp.fc1.bias" for i in (0, 1))
    state = clap.state_dict()
    swapped = open_msclap(save_clap(tmp_path / "weights.pth", clap, **{a: state[b], b: state[a]}))
    with torch.no_grad():
        right = clap.audio_encoder.projection(clap.htsat(pictures())[0])
        assert (swapped.audio_embeds(pictures()) - right).abs().max() > 1e-2


def test_the_real_geometry_is_the_librarys_default_with_184_heads():
    """Only names and shapes: the real file is 700 MB, its shapes are what the class of msclap makes."""
    from interp_core.models.clap.msclap import _audio_config

    with torch.device("meta"):
        real = PlainHTSAT(
            n_mels=64, picture=256, patch=4, width=96, depths=(2, 2, 6, 2), heads=(4, 8, 16, 32), window=8
        )
        library = ClapAudioModel(ClapAudioConfig())
    config = _audio_config(real.state_dict(), Path("CLAP_weights_2023.pth"))
    fields = (
        "depths num_attention_heads patch_embeds_hidden_size hidden_size window_size spec_size num_mel_bins mlp_ratio"
    )
    for field in (*fields.split(), "patch_size", "patch_stride", "qkv_bias", "enable_patch_layer_norm"):
        ours, default = getattr(config, field), getattr(ClapAudioConfig(), field)
        assert (list(ours) if isinstance(ours, tuple | list) else ours) == (
            list(default) if isinstance(default, tuple | list) else default
        )
    assert sum(d * h for d, h in zip(config.depths, config.num_attention_heads, strict=True)) == 184
    wanted = {name for name in library.state_dict() if not name.endswith("relative_position_index")}
    assert {ours for name in real.state_dict() for ours in audio_names(name)} == wanted


@pytest.mark.parametrize("prefix", ["", "clap.", "module.clap."])
def test_the_captioners_file_opens_through_the_names_in_front(tmp_path, prefix):
    clap = random_clap(text=None)
    model = open_msclap(save_clap(tmp_path / "weights.pth", clap, prefix))
    with torch.no_grad():
        expected = clap.audio_encoder.projection(clap.htsat(pictures())[0])
        assert torch.allclose(model.audio_embeds(pictures()), expected, rtol=1e-4, atol=1e-5)


def test_zero_shot_answers_are_those_of_one_text_at_a_time_through_gpt2(tmp_path, gpt2_folder):
    clap = random_clap("gpt2")
    old = {f"caption_encoder.base.h.0.attn.{name}": torch.ones(1, 1, 4, 4) for name in ("bias", "masked_bias")}
    model = open_msclap(save_clap(tmp_path / "weights.pth", clap, **old), gpt2_folder)
    words = AutoTokenizer.from_pretrained(gpt2_folder)
    with torch.no_grad():
        rows = []
        for text in TEXTS:
            ids = torch.tensor([words(text + " <|endoftext|>")["input_ids"]])
            rows.append(clap.caption_encoder.projection(clap.caption_encoder.base(ids).last_hidden_state[:, -1])[0])
        given = model.text_embeds(TEXTS)
        assert torch.allclose(given, torch.stack(rows), rtol=1e-4, atol=1e-5)
        audio = clap.audio_encoder.projection(clap.htsat(pictures())[0])
        cosines = torch.nn.functional.cosine_similarity(audio[:, None], torch.stack(rows)[None], dim=-1)
        assert torch.allclose(model(pictures(), given), cosines * np.exp(1.5), rtol=1e-4, atol=1e-5)
        assert (given[0] - given[1]).abs().max() > 1e-2


def test_an_exclamation_mark_counts_as_padding_as_in_the_original(tmp_path, gpt2_folder):
    clap = random_clap("gpt2")
    model = open_msclap(save_clap(tmp_path / "weights.pth", clap), gpt2_folder)
    words = AutoTokenizer.from_pretrained(gpt2_folder)
    ids = torch.tensor([words("dog!")["input_ids"] + words(" <|endoftext|>")["input_ids"]])
    assert (ids == 0).sum() == 1
    with torch.no_grad():
        states = clap.caption_encoder.projection(clap.caption_encoder.base(ids).last_hidden_state[0])
        assert torch.allclose(model.text_embeds(["dog!"])[0], states[-2], rtol=1e-4, atol=1e-5)


def test_zero_shot_answers_through_bert_read_the_first_token(tmp_path, bert_folder):
    clap = random_clap("bert", n_tokens=40)
    old = {"caption_encoder.base.embeddings.position_ids": torch.arange(40)[None]}
    model = open_msclap(save_clap(tmp_path / "weights.pth", clap, **old), bert_folder)
    words = AutoTokenizer.from_pretrained(bert_folder)
    with torch.no_grad():
        for text, given in zip(TEXTS, model.text_embeds(TEXTS), strict=True):
            state = clap.caption_encoder.base(**words(text, return_tensors="pt")).last_hidden_state[:, 0]
            assert torch.allclose(given, clap.caption_encoder.projection(state)[0], rtol=1e-4, atol=1e-5)


def test_without_tokenizer_or_text_tower_there_is_an_embedding_and_a_sentence(tmp_path, gpt2_folder, bert_folder):
    bare = open_msclap(save_clap(tmp_path / "a.pth", random_clap("gpt2")))
    with pytest.raises(InterpError, match=r"a\.pth has no tokenizer in it.*GPT-2 tokenizer"):
        bare.text_embeds(TEXTS)
    mute = open_msclap(save_clap(tmp_path / "b.pth", random_clap(None)))
    with pytest.raises(InterpError, match=r"b\.pth's text tower: none"):
        mute.text_embeds(TEXTS)
    roberta = {"caption_encoder.base.embeddings.token_type_embeddings.weight": torch.ones(1, 128)}
    other = open_msclap(save_clap(tmp_path / "c.pth", random_clap("bert"), **roberta))
    with pytest.raises(InterpError, match="neither GPT-2 nor BERT"):
        other.text_embeds(TEXTS)
    assert bare.audio_embeds(pictures()).shape == mute.audio_embeds(pictures()).shape == (2, 12)
    with pytest.raises(InterpError, match="GPT-2's tokenizer, in which '!' is token 0"):
        open_msclap(tmp_path / "a.pth", bert_folder)
    with pytest.raises(InterpError, match="has 3.. tokens, the text tower knows 50"):
        open_msclap(save_clap(tmp_path / "d.pth", random_clap("gpt2", n_tokens=50)), gpt2_folder)
    with pytest.raises(InterpError, match="holds no tokenizer"):
        open_msclap(tmp_path / "a.pth", tmp_path)
    speaks = open_msclap(tmp_path / "a.pth", gpt2_folder)
    for texts, said in ((["dog " * 50], "tokens long, the text tower takes 40"), ([], "one or more"), ([" "], "empty")):
        with pytest.raises(InterpError, match=said):
            speaks.text_embeds(texts)


H = "audio_encoder.base.htsat."


@pytest.mark.parametrize(
    "changes, said",
    [
        ({H + "layers.1.blocks.0.mlp.fc2.weight": None}, r"lacks audio_encoder\.layers\.1\.blocks\.0\.output\.dense"),
        ({H + "absolute_pos_embed": torch.ones(1, 2, 3)}, r"holds audio_encoder\.absolute_pos_embed besides"),
        ({H + "norm.bias": torch.ones(3)}, r"audio_encoder\.norm\.bias \(3,\) where \(32,\) fits"),
        ({H + "bn0.weight": None}, r"lacks audio_encoder\.base\.htsat\.bn0\.weight"),
        ({"audio_encoder.projection.linear1.weight": None}, r"lacks audio_encoder\.projection\.linear1"),
        ({"audio_encoder.projection.layer_norm.bias": None}, r"lacks layer_norm\.bias"),
        ({"caption_encoder.base.h.1.ln_2.bias": None}, r"lacks h\.1\.ln_2\.bias"),
        ({"logit_scale": None}, "lacks logit_scale"),
        ({H + "layers.0.blocks.0.attn.relative_position_bias_table": torch.ones(25, 1)}, "windows of 2 sizes"),
    ],
)
def test_weights_missing_or_left_over_are_named(tmp_path, changes, said):
    with pytest.raises(InterpError, match=said):
        open_msclap(save_clap(tmp_path / "weights.pth", random_clap("gpt2"), **changes))


def test_files_of_other_models_are_refused_in_a_sentence(tmp_path):
    torch.save({"model": {"audio_encoder.base.conv_block1.conv1.weight": torch.ones(2)}}, tmp_path / "2022.pth")
    torch.save({"model": {"wte.weight": torch.ones(2)}}, tmp_path / "gpt.pth")
    torch.save({"epoch": 1}, tmp_path / "none.pth")
    for name, said in (("2022.pth", "Cnn14"), ("gpt.pth", r"holds wte\.weight, and no"), ("none.pth", "holds epoch")):
        with pytest.raises(InterpError, match=said):
            open_msclap(tmp_path / name)


# ---- the front end ---------------------------------------------------------------------------------------------------


def clip(seconds: float, seed: int = 0, rate: int = 44_100) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate))).astype(np.float32)


def librosa_route(wave: np.ndarray) -> np.ndarray:
    """Exactly 7 s to dB, by librosa's own functions."""
    power = np.abs(librosa.stft(wave.astype(np.float64), n_fft=1024, hop_length=320, pad_mode="reflect")) ** 2
    filters = librosa.filters.mel(sr=32_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000)
    return librosa.power_to_db(filters @ power, ref=1.0, amin=1e-10, top_db=None).T


def test_log_mels_are_librosas():
    wave = clip(7)
    picture = msclap_features(wave)
    assert picture.shape == (1, 1, 965, 64) and picture.dtype == torch.float32
    assert np.abs(picture[0, 0].numpy() - librosa_route(wave)).max() < 1e-3  # of dB
    assert msclap_features(np.zeros(1000)).eq(-100).all()


def test_one_frame_is_that_of_the_formula():
    """Without librosa: a Hann window, a Fourier sum, triangles on the mel scale that is linear below 1 kHz."""
    wave = clip(7, seed=3).astype(np.float64)
    at = 321 * 320
    frame = wave[at - 512 : at + 512] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024))
    power = np.abs(np.exp(-2j * np.pi * np.outer(np.arange(513), np.arange(1024)) / 1024) @ frame) ** 2

    def to_hertz(mel):
        return np.where(mel < 15, 200 / 3 * mel, 1000 * 6.4 ** ((mel - 15) / 27))

    def to_mel(hertz):
        return np.where(hertz < 1000, hertz * 3 / 200, 15 + 27 * np.log(np.maximum(hertz, 1) / 1000) / np.log(6.4))

    edges = to_hertz(np.linspace(to_mel(50.0), to_mel(14_000.0), 66))
    bins = np.arange(513) * 32_000 / 1024
    for i in (0, 20, 63):
        low, mid, high = edges[i : i + 3]
        triangle = (
            np.clip(np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid)), 0, None) * 2 / (high - low)
        )
        expected = 10 * np.log10(triangle @ power)
        assert msclap_features(wave)[0, 0, 321, i].item() == pytest.approx(expected, abs=1e-3)


def test_filters_hear_44_100_as_if_it_were_32_000():
    """A tone of 1 kHz lands in the filter around 1000 * 32 / 44.1 Hz, not in the one around 1 kHz."""
    wave = np.sin(2 * np.pi * 1000 * np.arange(7 * 44_100) / 44_100)
    centres = librosa.mel_frequencies(66, fmin=50, fmax=14_000)[1:-1]
    loudest = msclap_features(wave)[0, 0].mean(0).argmax().item()
    assert loudest == np.abs(centres - 1000 * 32 / 44.1).argmin() != np.abs(centres - 1000).argmin()


def test_short_clips_repeat_and_long_ones_give_their_middle():
    short, long = clip(2.5), clip(9)
    assert torch.equal(msclap_features(short), msclap_features(np.tile(short, 3)[: 7 * 44_100]))
    assert torch.equal(msclap_features(long), msclap_features(long[44_100 : 8 * 44_100]))
    stereo = np.stack([clip(4, 1), clip(4, 2)])
    assert torch.equal(msclap_features(stereo), msclap_features(stereo.astype(np.float64).mean(0)))


def test_settings_come_from_the_file_or_from_the_caller(tmp_path):
    clap = random_clap(text=None, n_fft=512)
    model = open_msclap(save_clap(tmp_path / "weights.pth", clap))
    assert (model.front_end.n_fft, model.front_end.n_mels, model.front_end.n_frames) == (512, 16, 965)
    wave = clip(7)
    power = np.abs(librosa.stft(wave.astype(np.float64), n_fft=512, hop_length=320, pad_mode="reflect")) ** 2
    expected = 10 * np.log10(power.T @ clap.htsat.logmel_extractor.melW.detach().double().numpy())
    assert np.abs(msclap_features(wave, model.front_end)[0, 0].numpy() - expected).max() < 1e-3
    second = FrontEnd(sample_rate=16_000, seconds=1.0, n_mels=32)
    assert msclap_features(clip(3, rate=16_000), second).shape == (1, 1, second.n_frames, 32) == (1, 1, 51, 32)


@pytest.mark.parametrize(
    "samples, options, said",
    [
        (np.zeros(0), {}, r"samples are \(0,\)"),
        (np.zeros((100, 2)), {}, "channels first"),
        (np.full(100, np.nan), {}, "NaN"),
        (np.zeros(100), {"settings": FrontEnd(seconds=0.01)}, "less than half a frame"),
    ],
)
def test_clips_and_options_that_make_no_picture_are_refused(samples, options, said):
    with pytest.raises(InterpError, match=said):
        msclap_features(samples, **options)
