"""Countermeasure checkpoints: opened, run, scored and compared as the code that wrote them would have done it."""

import re
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model, WavLMConfig, WavLMModel

from interp_core.errors import InterpError
from interp_core.experiments.compare.parts import alike_parts, null_sites
from interp_core.models.countermeasure.checkpoint import (
    bonafide_margin,
    load_countermeasure,
    model_samples,
)
from interp_core.models.countermeasure.layout import layout_of
from interp_core.models.countermeasure.subject import SpoofDetector
from interp_core.sites import Site

N_LAYERS, WIDTH, HIDDEN, REPR, CODECS, QUALITIES = 4, 48, 20, 12, 3, 2
SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [32, 32],
    "conv_kernel": [10, 8],
    "conv_stride": [5, 8],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "initializer_range": 0.5,
}
FAMILIES = {
    "wavlm_base_plus": (WavLMConfig, WavLMModel, {"num_buckets": 24, "max_bucket_distance": 40}),
    "wav2vec2_base": (Wav2Vec2Config, Wav2Vec2Model, {}),
}
WAVES = torch.randn(3, 4000, generator=torch.Generator().manual_seed(0))
LENGTHS = torch.full((3,), 4000)


def checkpoint(
    name="wavlm_base_plus",
    method="erm",
    pooling="stats",
    selection=None,
    projection=(HIDDEN,),
    classifier=(),
    shared=(16, 16),
    taps="pooled",
    seed=0,
):
    """A random checkpoint as the thesis code writes it, put together without the code under test."""
    torch.manual_seed(seed)
    config_class, model_class, more = FAMILIES[name]
    backbone = model_class(config_class(**SIZES, **more)).eval()
    selection = selection or {"method": "weighted", "k": 6}
    n_mixed = {
        "first_k": selection.get("k"),
        "last_k": selection.get("k"),
        "specific": len(selection.get("layers", ())),
    }
    pooled = 2 * WIDTH if pooling == "stats" else WIDTH
    weights = {f"backbone.model.{key}": value for key, value in backbone.state_dict().items()}
    weights["backbone.layer_pooling.weights"] = torch.randn(n_mixed.get(selection["method"]) or N_LAYERS)
    weights |= linear_maps("projection.mlp", (pooled, *projection, REPR), step=3)
    weights |= linear_maps("task_head.classifier", (REPR, *classifier, 2), step=3)
    if pooling == "attention":
        weights |= linear_maps("pooling.attention", (WIDTH, 10, 1), step=2)
    if method == "dann":
        widths = (pooled if taps == "pooled" else REPR, *shared)
        weights |= linear_maps("domain_discriminator.shared", widths, step=3, numbered=True)
        weights |= linear_maps("domain_discriminator.codec_head", (shared[-1], CODECS))
        weights |= linear_maps("domain_discriminator.codec_q_head", (shared[-1], QUALITIES))
    return {
        "epoch": 7,
        "model_state_dict": weights,
        "optimizer_state_dict": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4}]},
        "metrics": {"eer": 0.08, "loss": 0.3},
        "timestamp": "2026-01-01T00:00:00",
        "config": {
            "backbone": {"name": name, "freeze": True, "layer_selection": selection, "hf_config": {**SIZES, **more}},
            "pooling": {"method": pooling},
            "projection": {"input_dim": pooled, "output_dim": REPR, "num_layers": 1 + len(projection), "dropout": 0.1},
            "classifier": {"input_dim": REPR, "num_classes": 2, "hidden_dim": classifier[0] if classifier else 0},
            "training": {"method": method},
            "audio": {"sample_rate": 16000, "max_duration_sec": 0.25},
        },
    }


def linear_maps(stack, widths, step=3, numbered=False):
    numbered = numbered or len(widths) > 2 or stack == "projection.mlp"
    made = {}
    for i, (width_in, width_out) in enumerate(zip(widths, widths[1:], strict=False)):
        name = f"{stack}.{i * step}" if numbered else stack
        made[f"{name}.weight"] = torch.randn(width_out, width_in) / width_in**0.5
        made[f"{name}.bias"] = torch.randn(width_out)
    return made


def saved(tmp_path, state, name="best.pt"):
    torch.save(state, tmp_path / name)
    return tmp_path / name


def opened(tmp_path, **settings):
    state = checkpoint(**settings)
    return state, load_countermeasure(saved(tmp_path, state))


def by_hand(state, waves, lengths=None):
    """The model's forward written out step by step: hidden states by walking the encoder's layers."""
    config, weights = state["config"], state["model_state_dict"]
    config_class, model_class, _ = FAMILIES[config["backbone"]["name"]]
    backbone = model_class(config_class(**config["backbone"]["hf_config"])).eval()
    prefix = "backbone.model."
    backbone.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    features = backbone.feature_projection(backbone.feature_extractor(waves).transpose(1, 2))[0]
    x = backbone.encoder.layer_norm(features + backbone.encoder.pos_conv_embed(features))
    states, bias = [], None
    for layer in backbone.encoder.layers:
        if isinstance(backbone, WavLMModel):
            x, bias = layer(x, position_bias=bias)
        else:
            x = layer(x)
        states.append(x)
    selection = config["backbone"]["layer_selection"]
    picked = {
        "weighted": states,
        "first_k": states[: selection.get("k")],
        "last_k": states[-selection.get("k", 1) :],
        "specific": [states[i] for i in selection.get("layers", ())],
    }[selection["method"]]
    share = torch.softmax(weights["backbone.layer_pooling.weights"], 0)
    mixed = sum(w * h for w, h in zip(share, picked, strict=True))
    n = mixed.shape[1]
    pooled = {
        "stats": lambda: torch.cat([mixed.mean(1), (mixed.var(1, correction=0) + 1e-8).sqrt()], -1),
        "mean": lambda: mixed.mean(1) * n / lengths[0],  # the training code divides by samples
        "attention": lambda: torch.einsum("bt,btd->bd", attention_of(weights, mixed), mixed),
    }
    if lengths is None:
        pooled["stats"] = lambda: torch.cat([mixed.mean(1), mixed.std(1)], -1)
        pooled["mean"] = lambda: mixed.mean(1)
    vector = pooled[config["pooling"]["method"]]()
    representation = walk(weights, "projection.mlp", vector)
    found = {"task_logits": walk(weights, "task_head.classifier", representation), "repr": representation}
    found |= {"mixed": mixed, "pooled": vector, "all_hidden_states": states}
    if "domain_discriminator.codec_head.weight" in weights:
        taps_pooled = weights["domain_discriminator.shared.0.weight"].shape[1] == vector.shape[1]
        shared = walk(weights, "domain_discriminator.shared", vector if taps_pooled else representation).relu()
        found["codec_logits"] = walk(weights, "domain_discriminator.codec_head", shared)
        found["codec_q_logits"] = walk(weights, "domain_discriminator.codec_q_head", shared)
    return found


def attention_of(weights, frames):
    get = weights.__getitem__
    hidden = torch.tanh(F.linear(frames, get("pooling.attention.0.weight"), get("pooling.attention.0.bias")))
    return F.linear(hidden, get("pooling.attention.2.weight"), get("pooling.attention.2.bias"))[..., 0].softmax(-1)


def walk(weights, stack, x):
    names = sorted(k.removesuffix(".weight") for k in weights if re.fullmatch(rf"{stack}(\.\d+)?\.weight", k))
    for i, name in enumerate(names):
        x = F.linear(x.relu() if i else x, weights[f"{name}.weight"], weights[f"{name}.bias"])
    return x


@torch.inference_mode()
def assert_same_forward(state, net, lengths):
    expected, found = by_hand(state, WAVES, lengths), net(WAVES, lengths=lengths)
    assert set(found) == set(expected)
    for name in expected:
        pairs = zip(found[name], expected[name], strict=True) if name == "all_hidden_states" else [(found, expected)]
        for left, right in pairs:
            left, right = (left, right) if name == "all_hidden_states" else (left[name], right[name])
            torch.testing.assert_close(left, right, atol=2e-5, rtol=2e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("method", ["erm", "dann"])
def test_a_checkpoint_runs_as_the_forward_written_out_by_hand(tmp_path, name, method):
    state, found = opened(tmp_path, name=name, method=method)
    for lengths in (LENGTHS, None):
        assert_same_forward(state, found.net, lengths)
    assert (found.epoch, found.method, found.max_seconds, found.sample_rate) == (7, method, 0.25, 16000)
    assert found.metrics == {"eer": 0.08, "loss": 0.3}
    assert not any(module.training for module in found.net.modules())


@pytest.mark.parametrize(
    "settings",
    [
        {"pooling": "mean"},
        {"pooling": "attention"},
        {"selection": {"method": "first_k", "k": 2}},
        {"selection": {"method": "last_k", "k": 3}},
        {"selection": {"method": "specific", "layers": [3, 0]}},
        {"projection": ()},
        {"projection": (14, 13)},
        {"classifier": (9,)},
        {"method": "dann", "shared": (16,)},
        {"method": "dann", "taps": "repr"},
    ],
    ids=str,
)
def test_every_choice_of_the_config_runs_as_by_hand(tmp_path, settings):
    state, found = opened(tmp_path, **settings)
    assert_same_forward(state, found.net, LENGTHS)


def test_lengths_make_the_deviation_the_populations_and_an_all_ones_mask_changes_nothing(tmp_path):
    _, found = opened(tmp_path)
    with torch.inference_mode():
        with_lengths, without = found.net(WAVES, lengths=LENGTHS), found.net(WAVES)
        masked = found.net(WAVES, attention_mask=torch.ones_like(WAVES, dtype=torch.bool), lengths=LENGTHS)
    frames = without["mixed"].shape[1]
    ratio = with_lengths["pooled"][:, WIDTH:] / without["pooled"][:, WIDTH:]
    torch.testing.assert_close(ratio, torch.full_like(ratio, ((frames - 1) / frames) ** 0.5))
    torch.testing.assert_close(masked["task_logits"], with_lengths["task_logits"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "published",
    [
        WavLMConfig(),
        Wav2Vec2Config(),
        Wav2Vec2Config(
            **{"hidden_size": 1024, "num_hidden_layers": 3, "num_attention_heads": 16, "intermediate_size": 4096},
            **{"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True},
        ),
        WavLMConfig(mask_time_prob=0.0),
    ],
    ids=["WavLM base", "wav2vec 2.0 base", "wav2vec 2.0 large", "without a mask embedding"],
)
def test_the_backbone_config_of_a_published_size_is_read_off_the_weights_alone(tmp_path, published):
    model_class = WavLMModel if published.model_type == "wavlm" else Wav2Vec2Model
    with torch.device("meta"):
        backbone = model_class(published)
    width = 2 * published.hidden_size
    shapes = {f"backbone.model.{name}": tuple(value.shape) for name, value in backbone.state_dict().items()}
    shapes |= {"projection.mlp.0.weight": (5, width), "task_head.classifier.weight": (2, 5)}
    hub_id = {"wavlm": "microsoft/wavlm-base-plus", "wav2vec2": "facebook/wav2vec2-base"}[published.model_type]
    derived = layout_of(tmp_path, {"backbone": {"pretrained": hub_id}}, shapes).hf
    with torch.device("meta"):
        rebuilt = model_class(derived)
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {
        k: v.shape for k, v in backbone.state_dict().items()
    }
    for setting in ("conv_stride", "num_attention_heads", "do_stable_layer_norm", "feat_extract_norm", "hidden_act"):
        assert list_of(getattr(derived, setting)) == list_of(getattr(published, setting)), setting
    assert getattr(derived, "max_bucket_distance", None) == getattr(published, "max_bucket_distance", None)


def list_of(value):
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("stage", ["backbone.layer_pooling", "pooling", "projection", "task_head"])
def test_a_hook_on_a_stage_reads_what_the_forward_returns_and_its_edit_reaches_the_logits(tmp_path, stage):
    _, found = opened(tmp_path, method="dann")
    key = {"backbone.layer_pooling": "mixed", "pooling": "pooled", "projection": "repr", "task_head": "task_logits"}[
        stage
    ]
    seen = []
    with torch.inference_mode():
        clean = found.net(WAVES, lengths=LENGTHS)
        handle = found.net.get_submodule(stage).register_forward_hook(lambda m, a, out: seen.append(out) or -out)
        edited = found.net(WAVES, lengths=LENGTHS)
        handle.remove()
    assert torch.equal(seen[0], clean[key])
    assert torch.equal(edited[key], -clean[key])
    assert not torch.allclose(edited["task_logits"], clean["task_logits"], atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_edit_put_in_front_of_the_librarys_recording_reaches_the_layer_mix_after_a_plain_run(tmp_path, name):
    _, found = opened(tmp_path, name=name)
    with torch.inference_mode():
        clean = found.net(WAVES, lengths=LENGTHS)

        def silence(module, args, out):
            return (out[0] * 0, *out[1:]) if isinstance(out, tuple) else out * 0

        last = found.net.layers[-1]
        handle = last.register_forward_hook(silence, prepend=True)
        edited = found.net(WAVES, lengths=LENGTHS)
        handle.remove()
    share = found.net.backbone.layer_pooling.weights.softmax(0)[-1]
    torch.testing.assert_close(
        edited["mixed"], clean["mixed"] - share * clean["all_hidden_states"][-1], atol=1e-5, rtol=1e-5
    )


def test_training_moves_the_discriminators_gradient_backwards_and_leaves_a_frozen_backbone_in_eval_mode(tmp_path):
    _, found = opened(tmp_path, method="dann")
    net = found.net.train()
    assert net.projection.training and not net.backbone.model.training
    net.projection.eval(), net.domain_discriminator.eval(), net.task_head.eval()
    pooled = torch.randn(3, 2 * WIDTH, requires_grad=True)
    net.domain_discriminator(pooled)[0].square().sum().backward()
    straight, pooled.grad = pooled.grad, None
    net.grl.lambda_ = 0.25
    net.domain_discriminator(net.grl(pooled))[0].square().sum().backward()
    torch.testing.assert_close(pooled.grad, -0.25 * straight)
    assert not any(key.startswith("grl") for key in net.state_dict())


@pytest.mark.parametrize("below", ["best.pt", "checkpoints/best.pt"])
def test_a_run_folder_opens_as_its_best_checkpoint(tmp_path, below):
    (tmp_path / "checkpoints").mkdir()
    state = checkpoint(method="dann")
    saved(tmp_path, state, below)
    found = load_countermeasure(tmp_path)
    assert found.path == tmp_path / below
    assert len(found.weights_hash) == 64
    assert_same_forward(state, found.net, LENGTHS)


def test_old_saves_open_too_with_the_parts_of_weight_norm_by_their_old_names_and_without_a_zip(tmp_path):
    state = checkpoint()
    old = dict(state)
    rename = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    old["model_state_dict"] = {
        re.sub("|".join(map(re.escape, rename)), lambda m: rename[m[0]], key): value
        for key, value in state["model_state_dict"].items()
    }
    assert any(key.endswith("weight_g") for key in old["model_state_dict"])
    torch.save(old, tmp_path / "best.pt", _use_new_zipfile_serialization=False)
    assert_same_forward(state, load_countermeasure(tmp_path).net, LENGTHS)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_of_data_parallel_and_compiled_models_open_too(tmp_path, prefix):
    saved = checkpoint()
    plain, wrapped = tmp_path / "plain.pt", tmp_path / "wrapped.pt"
    torch.save(saved, plain)
    torch.save({**saved, "model_state_dict": {prefix + k: v for k, v in saved["model_state_dict"].items()}}, wrapped)
    one, two = (load_countermeasure(path).net.state_dict() for path in (plain, wrapped))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("audio", [{"max_duration_sec": 1e9}, {"max_duration_sec": None}, {"sample_rate": 10**12}])
def test_a_length_that_would_fill_the_memory_is_refused(tmp_path, audio):
    saved = checkpoint()
    saved["config"] = {**saved["config"], "audio": {**(saved["config"].get("audio") or {}), **audio}}
    torch.save(saved, tmp_path / "best.pt")
    with pytest.raises(InterpError, match=r"expected Hz and up to 3600 seconds"):
        load_countermeasure(tmp_path / "best.pt")


def test_weights_come_in_the_dtype_that_was_asked_for(tmp_path):
    path = saved(tmp_path, checkpoint())
    net = load_countermeasure(path, dtype=torch.float64).net
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float64}


class Evil:
    def __reduce__(self):
        return print, ("this would have run",)


@pytest.mark.parametrize("smuggled, said", [(np.float64(0.08), "scalar"), (Evil(), "print,")])
def test_a_pickle_with_more_than_tensors_is_refused_by_name_and_never_run(tmp_path, capsys, smuggled, said):
    state = checkpoint() | {"metrics": {"eer": smuggled}}
    with pytest.raises(InterpError, match=said) as refused:
        load_countermeasure(saved(tmp_path, state))
    assert "save again" in str(refused.value) and "\n" not in str(refused.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda s: s["model_state_dict"].pop("task_head.classifier.bias"), "lacks task_head.classifier.bias"),
        (lambda s: s["model_state_dict"].pop("task_head.classifier.weight"), "no weights below task_head.classifier"),
        (lambda s: s["model_state_dict"].pop("backbone.layer_pooling.weights"), "lacks backbone.layer_pooling.weights"),
        (lambda s: s["model_state_dict"].pop("backbone.model.encoder.layer_norm.weight"), "encoder.layer_norm.weight"),
        (lambda s: s["model_state_dict"].update({"extra.bias": torch.ones(1)}), "extra.bias"),
        (lambda s: s.pop("config"), "expected a checkpoint of the thesis code with"),
        (lambda s: s["config"]["pooling"].update(method="mean"), "set pooling.method"),
        (lambda s: s["config"]["pooling"].update(method="max"), "'max' is none of stats, mean, attention"),
        (lambda s: s["config"]["backbone"].update(name="trillsson"), "neither a WavLM nor a wav2vec"),
        (lambda s: s["config"]["backbone"].pop("hf_config"), "2 convolutions"),
        (lambda s: s["config"]["backbone"]["hf_config"].update(hidden_size="wide"), "makes no wavlm config"),
        (lambda s: s["config"]["backbone"]["hf_config"].update(intermediate_size=65), "size mismatch"),
        (lambda s: s["config"]["backbone"]["layer_selection"].update(method="first_k", k=2), "chooses 2 layers"),
        (lambda s: s["config"]["backbone"]["layer_selection"].update(method="best"), "'best' is none of weighted"),
        (
            lambda s: s["config"]["backbone"]["layer_selection"].update(method="specific", layers=[0, 4]),
            "leaves the backbone's 4 layers",
        ),
        (
            lambda s: s["model_state_dict"].update({"domain_discriminator.shared.0.weight": torch.ones(16, 31)}),
            "discriminator takes 31 numbers",
        ),
    ],
)
def test_a_checkpoint_that_does_not_make_the_model_is_refused_with_the_reason(tmp_path, change, said):
    state = deepcopy(checkpoint(method="dann"))
    change(state)
    with pytest.raises(InterpError, match=re.escape(said)) as refused:
        load_countermeasure(saved(tmp_path, state))
    assert "\n" not in str(refused.value)


def test_a_width_whose_heads_nothing_shows_is_refused_not_guessed(tmp_path):
    state = checkpoint(name="wav2vec2_base")
    del state["config"]["backbone"]["hf_config"]["num_attention_heads"]
    with pytest.raises(InterpError, match="num_attention_heads"):
        load_countermeasure(saved(tmp_path, state))


def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    with pytest.raises(InterpError, match="does not exist"):
        load_countermeasure(tmp_path / "best.pt")
    with pytest.raises(InterpError, match="neither checkpoints/best.pt nor best.pt"):
        load_countermeasure(tmp_path)
    (tmp_path / "best.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InterpError, match="no file of torch.save"):
        load_countermeasure(tmp_path)
    whole = saved(tmp_path, checkpoint()).read_bytes()
    (tmp_path / "best.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InterpError, match="cut short"):
        load_countermeasure(tmp_path)
    with pytest.raises(InterpError, match="holds a list"):
        load_countermeasure(saved(tmp_path, [1]))


def test_a_clip_is_cropped_in_the_middle_or_filled_up_at_the_end_and_never_normalised():
    ramp = np.arange(11, dtype=np.float32)
    assert model_samples(ramp, 1.0, 4).tolist() == [3, 4, 5, 6]
    assert model_samples(ramp, 1.0, 11).tolist() == ramp.tolist()
    assert model_samples(ramp, 2.0, 7).tolist() == [*ramp.tolist(), 0, 0, 0]
    assert model_samples(torch.full((3,), 0.01), 6.0).shape == (96_000,)
    for wrong, said in ((np.zeros((2, 5)), "mono"), (np.zeros(0), "mono"), (np.array([0.0, np.nan]), "NaN")):
        with pytest.raises(InterpError, match=said):
            model_samples(wrong, 1.0, 4)


def test_clips_of_any_length_become_one_batch_with_lengths(tmp_path):
    state, found = opened(tmp_path)
    clips = [np.ones(4500, np.float32), np.ones(100, np.float32)]
    inputs = found.inputs(clips)
    assert inputs["waveform"].shape == (2, 4000) and inputs["lengths"].tolist() == [4000, 4000]
    assert inputs["waveform"].sum(1).tolist() == [4000, 100]
    with torch.inference_mode():
        expected = by_hand(state, inputs["waveform"], inputs["lengths"])["task_logits"]
        torch.testing.assert_close(found.net(**inputs)["task_logits"], expected, atol=2e-5, rtol=2e-5)
    with pytest.raises(InterpError, match="add a batch axis"):
        found.net(inputs["waveform"][0])


def test_the_margin_is_that_of_the_bona_fide_class_and_does_not_saturate():
    logits = torch.tensor([[2.0, -1.0], [0.5, 0.5], [-40.0, 40.0], [-60.0, 60.0]])
    assert bonafide_margin(logits).tolist() == [3, 0, -80, -120]
    assert logits.softmax(-1)[2, 1] == logits.softmax(-1)[3, 1]  # why the margin is there


def pair(tmp_path, change=lambda weights: None, settings=None):
    base, other = checkpoint(), deepcopy(checkpoint())
    change(other["model_state_dict"])
    (settings or (lambda config: None))(other["config"])
    return [subject(saved(tmp_path, s, f"{i}.pt")) for i, s in enumerate((base, other))]


def subject(file):
    return SpoofDetector.of(file.name, load_countermeasure(file), torch.device("cpu"))


def resid(*layers):
    return {Site("resid_post", layer) for layer in layers}


def nudged(name):
    def change(weights):
        weights[name].view(-1)[0] = torch.nextafter(weights[name].view(-1)[0], torch.tensor(9.0))

    return change


LAYERS = [f"layer {i}" for i in range(N_LAYERS)]
STAGES = ("mixed", "pooled", "projection", "logits")
PARTS = ["stem", *LAYERS, "layer_pooling", "pooling", "projection", "task_head"]


def test_two_loads_of_one_file_are_identical_in_every_part_and_must_agree_everywhere(tmp_path):
    models = pair(tmp_path)
    assert alike_parts(*models) == dict.fromkeys(PARTS, True)
    assert null_sites(*models) == resid(*range(N_LAYERS)) | {Site(kind) for kind in STAGES}


@pytest.mark.parametrize(
    "weight, part, still_equal",
    [
        ("backbone.model.feature_projection.projection.bias", "stem", (0, ())),
        ("backbone.model.encoder.layer_norm.weight", "stem", (0, ())),
        ("backbone.model.encoder.layers.2.attention.v_proj.bias", "layer 2", (2, ())),
        ("backbone.layer_pooling.weights", "layer_pooling", (N_LAYERS, ())),
        ("projection.mlp.3.weight", "projection", (N_LAYERS, ("mixed", "pooled"))),
        ("task_head.classifier.bias", "task_head", (N_LAYERS, ("mixed", "pooled", "projection"))),
    ],
)
def test_one_bit_of_one_weight_marks_its_part_and_all_that_follows_from_it(tmp_path, weight, part, still_equal):
    models = pair(tmp_path, nudged(weight))
    n_layers, stages = still_equal
    assert [name for name, alike in alike_parts(*models).items() if not alike] == [part]
    assert null_sites(*models) == resid(*range(n_layers)) | {Site(kind) for kind in stages}
    with torch.inference_mode():  # what is said to be equal is so to the bit
        left, right = (model.hf(WAVES, lengths=LENGTHS) for model in models)
    for layer in range(n_layers):
        assert torch.equal(left["all_hidden_states"][layer], right["all_hidden_states"][layer])
    for stage in stages:
        name = {"projection": "repr"}.get(stage, stage)
        assert torch.equal(left[name], right[name])


def test_a_weight_that_acts_in_training_only_counts_for_nothing(tmp_path):
    assert all(alike_parts(*pair(tmp_path, nudged("backbone.model.masked_spec_embed"))).values())


def test_settings_that_no_weight_shows_tell_two_models_apart(tmp_path):
    def farther(config):
        config["backbone"]["hf_config"]["max_bucket_distance"] = 60

    assert not alike_parts(*pair(tmp_path, settings=farther))["stem"]
    first = subject(saved(tmp_path, checkpoint(selection={"method": "first_k", "k": 2})))
    last = subject(saved(tmp_path, checkpoint(selection={"method": "last_k", "k": 2})))
    assert not alike_parts(first, last)["layer_pooling"]
    assert alike_parts(first, last)["layer 3"]


def test_a_mix_of_the_first_layers_stays_null_where_only_a_later_layer_differs(tmp_path):
    base, donor = (
        checkpoint(selection={"method": "first_k", "k": 2}),
        checkpoint(selection={"method": "first_k", "k": 2}),
    )
    nudged(f"backbone.model.encoder.layers.{N_LAYERS - 1}.attention.v_proj.bias")(donor["model_state_dict"])
    models = [subject(saved(tmp_path, state, f"{i}.pt")) for i, state in enumerate((base, donor))]
    assert null_sites(*models) == resid(*range(N_LAYERS - 1)) | {Site(kind) for kind in STAGES}


def test_a_discriminator_that_only_one_model_has_is_named_and_changes_no_activation(tmp_path):
    dann = subject(saved(tmp_path, checkpoint(method="dann")))
    erm_state = checkpoint(method="dann")
    erm_state["model_state_dict"] = {
        k: v for k, v in erm_state["model_state_dict"].items() if not k.startswith("domain_discriminator")
    }
    erm = subject(saved(tmp_path, erm_state))
    for models in ((dann, erm), (erm, dann)):
        assert [name for name, alike in alike_parts(*models).items() if not alike] == ["domain_discriminator"]
        assert Site("logits") in null_sites(*models)


def test_the_modules_have_the_names_that_checkpoints_use(tmp_path):
    _, found = opened(tmp_path, method="dann")
    for name in ("backbone.model.encoder.layers.0", "backbone.layer_pooling", "pooling", "projection.mlp.3"):
        assert isinstance(found.net.get_submodule(name), nn.Module)
    assert isinstance(found.net.get_submodule("task_head.classifier"), nn.Linear)
