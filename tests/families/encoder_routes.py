"""Other routes to an encoder's numbers: the library's own classes, modules by written-out names, plain torch hooks.

Nothing here comes from interp_core but the opened subject's library model, `hf`. What countermeasures of published code
answer was computed by that code.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import AutoFeatureExtractor, AutoTokenizer

from tests.families.detectors import ANSWERS
from tests.families.subjects import Opened
from tests.models.test_countermeasure import by_hand, checkpoint
from tests.models.test_resnet import small

TEXTS = ["This is a sound of dog.", "This is a sound of rain."]
# Below a block; of WavLM's attention the projection is no module that is called.
WAVE = {"attn_out": "attention", "head_out": "attention.out_proj"}
WAVE |= {"mlp_out": "feed_forward", "mlp_act": "feed_forward.output_dense", "resid_mid": "final_layer_norm"}
WHISPER = {"attn_out": "self_attn", "head_out": "self_attn.out_proj", "mlp_out": "fc2", "mlp_act": "fc2"}
WHISPER |= {"cross_out": "encoder_attn", "cross_head_out": "encoder_attn.out_proj", "resid_mid": "final_layer_norm"}
DATA2VEC = {**WAVE, "resid_mid": "feed_forward"}
SEWD = {"attn_out": "attention.output.dense", "head_out": "attention.output.dense", "resid_mid": "intermediate"}
SEWD |= {"mlp_out": "output.dense", "mlp_act": "output.dense"}
CONFORMER = {"attn_out": "self_attn", "head_out": "self_attn.linear_out", "resid_mid": "ffn2_layer_norm"}
CONFORMER |= {"mlp_out": "ffn2", "mlp_act": "ffn2.output_dense"}
MOONSHINE = {"attn_out": "self_attn", "head_out": "self_attn.o_proj", "mlp_out": "mlp", "mlp_act": "mlp.fc2"}
MOONSHINE |= {"cross_out": "encoder_attn", "cross_head_out": "encoder_attn.o_proj"}
MOONSHINE_WRITES = {**MOONSHINE, "resid_mid": "final_layernorm"}
PARAKEET = {"attn_out": "self_attn", "head_out": "self_attn.o_proj", "resid_mid": "norm_feed_forward2"}
PARAKEET |= {"mlp_out": "feed_forward2", "mlp_act": "feed_forward2.linear2"}
AST = {"attn_out": "attention", "head_out": "attention.o_proj", "mlp_out": "mlp", "mlp_act": "mlp.fc2"}
AST |= {"resid_mid": "layernorm_after"}
CLAP = {"attn_out": "attention", "head_out": "attention.output.dense", "mlp_out": "output", "mlp_act": "output.dense"}
CLAP |= {"resid_mid": "layernorm_after"}
SPEECHT5_WRITES = {**DATA2VEC, "attn_out": "self_attn", "head_out": "self_attn.out_proj"}
SPEECHT5_WRITES |= {"cross_out": "encoder_attn", "cross_head_out": "encoder_attn.out_proj"}
SEAMLESS_WRITES = {"attn_out": "self_attn", "head_out": "self_attn.out_proj", "mlp_out": "ffn", "mlp_act": "ffn.fc2"}
SEAMLESS_WRITES |= {"cross_out": "cross_attention", "cross_head_out": "cross_attention.out_proj"}
SEAMLESS_WRITES |= {"resid_mid": "ffn_layer_norm"}
NAMES: dict[str, dict[str, str]] = {
    **dict.fromkeys(("wavlm", "wav2vec2", "hubert", "unispeech", "unispeechsat", "spoof", "detector"), WAVE),
    **dict.fromkeys(("data2vec", "sew"), DATA2VEC),
    "sewd": SEWD,
    **dict.fromkeys(("conformer", "w2vbert"), CONFORMER),
    **dict.fromkeys(("whisper", "speech2text"), WHISPER),
    "speecht5-encoder": DATA2VEC,
    "speecht5-decoder": SPEECHT5_WRITES,
    "streaming-encoder": {**MOONSHINE, "resid_mid": "post_attention_layernorm"},
    "moonshine": {**MOONSHINE, "resid_mid": ""},  # its name is another one in each part: `module_of`
    "ast": AST,
    **dict.fromkeys(("clap", "msclap"), CLAP),
    "parakeet": PARAKEET,
    **dict.fromkeys(("seamless-encoder", "seamless2-encoder"), CONFORMER),
    **dict.fromkeys(("seamless-decoder", "seamless2-decoder"), SEAMLESS_WRITES),
    **dict.fromkeys(("canary-encoder", "cohere-encoder"), PARAKEET),
    **dict.fromkeys(
        ("canary-decoder", "cohere-decoder", "streaming-decoder"), {**MOONSHINE, "resid_mid": "final_layernorm"}
    ),
    "resnet": {},
    "aasist": {},
}
SEAMLESS = {"encoder": "speech_encoder.encoder.layers", "decoder": "text_decoder.layers"}


def names_of(one: Opened) -> dict[str, str]:
    """Where the sites are below a block, by kind."""
    return NAMES.get(one.case.name) or NAMES[one.case.family]


BODIES = {"unispeechsat": "unispeech_sat", "data2vec": "data2vec_audio"}
BODIES["sewd"] = "sew_d"
BODIES |= {"conformer": "wav2vec2_conformer", "w2vbert": "wav2vec2_bert"}


def blocks_of(one: Opened) -> list[nn.Module]:
    """The blocks in the order of the forward pass."""
    hf: Any = one.subject.hf
    if one.case.family in ("clap", "msclap"):
        tower = getattr(hf, "audio_model", hf)
        return [block for stage in tower.audio_encoder.layers for block in stage.blocks]
    if one.case.family == "aasist":
        return list(hf.blocks)
    if one.case.family == "resnet":
        return [unit for stage in hf.resnet.encoder.stages for unit in stage.layers]
    paths = {
        "spoof": "backbone.model.encoder.layers",
        "detector": "trunk.encoder.layers",
        "ast": "audio_spectrogram_transformer.layers",
        "whisper": f"model.{one.case.part}.layers" if one.case.part else "encoder.layers",
        "parakeet": "encoder.layers" if hasattr(hf, "encoder") else "layers",
        **dict.fromkeys(("moonshine", "streaming", "speech2text", "canary", "cohere"), f"model.{one.case.part}.layers"),
        "speecht5": f"speecht5.{one.case.part}.wrapped_{one.case.part}.layers",
        **dict.fromkeys(("seamless", "seamless2"), SEAMLESS.get(one.case.part, "")),
    }
    bare = hasattr(hf, "encoder")
    wave = "encoder.layers" if bare else f"{BODIES.get(one.case.family, one.case.family)}.encoder.layers"
    wave = wave.replace("encoder.layers", "encoder.encoder.layer") if one.case.family == "sewd" else wave
    return list(hf.get_submodule(paths.get(one.case.family, wave)))


def module_of(one: Opened, kind: str, layer: int) -> nn.Module:
    """The module that a kind of site belongs to, in one block."""
    block = blocks_of(one)[layer]
    if kind == "resid_mid" and not getattr(one.subject.config, "do_stable_layer_norm", True):
        return block.feed_forward  # its norms stand behind: between the two the stream is normed
    if kind == "resid_mid" and one.case.family == "moonshine":
        return block.final_layernorm if one.case.part == "decoder" else block.post_attention_layernorm
    return block if kind in ("resid_pre", "resid_post") else block.get_submodule(names_of(one)[kind])


def is_input(kind: str) -> bool:
    return kind in ("resid_pre", "head_out", "mlp_act", "cross_head_out", "resid_mid")


# ---- answers ---------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def answer(one: Opened, inputs: Mapping[str, Tensor], hf: Any = None) -> Tensor:
    """The library's own forward: [batch, n] logits, or the unit embedding of a model that compares with texts."""
    hf = one.subject.hf if hf is None else hf
    if one.case.reads == "words":
        return hf(**inputs, use_cache=False).logits[:, -1].float()
    if one.case.reads == "spoof":
        return hf(**inputs)["task_logits"].float()
    if one.case.reads == "detector":
        return hf(**inputs).float()
    if one.case.reads == "texts":
        made = hf.audio_embeds(**inputs) if one.case.family == "msclap" else hf.get_audio_features(**inputs)
        return F.normalize(getattr(made, "pooler_output", made).float(), dim=-1)
    if one.case.reads == "probe":
        out = getattr(hf, "encoder", hf)(**inputs) if one.case.family == "parakeet" else hf(**inputs)
        if one.case.family == "parakeet" and "attention_mask" in inputs:  # a last frame may be silence alone
            out.last_hidden_state = out.last_hidden_state[:, : int(out.attention_mask.sum())]
        pooled = out.pooler_output if one.case.family == "clap" else out.last_hidden_state.mean(1)
        probe: Any = one.subject.probe  # type: ignore[attr-defined]
        return pooled.float() @ probe.weight.T + probe.bias
    return hf(**inputs).logits.float()


@torch.inference_mode()
def answer_from_the_start(one: Opened, name: str) -> Tensor:
    """The same from the samples, by a second opening that knows nothing of this product: [n]."""
    samples = one.samples[name]
    if one.case.reads == "detector":
        return torch.tensor(ANSWERS[one.case.name][name])
    if one.case.family == "spoof":
        from tests.families.subjects import SPOOF

        wave = torch.zeros(1, 4000)
        wave[0, : len(samples)] = torch.from_numpy(samples)
        return by_hand(checkpoint(**SPOOF[one.case.name]), wave, torch.tensor([4000]))["task_logits"][0]
    if one.case.family == "resnet":
        from PIL import Image

        scaled = np.array(Image.fromarray(samples).resize((96, 96), Image.Resampling.BILINEAR))
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        pixels = torch.from_numpy((scaled / 255 - mean) / std).float().permute(2, 0, 1)
        return small()(pixels[None])[0]
    if one.case.family == "msclap":
        from interp_core.models.clap.msclap import msclap_features
        from tests.families.subjects import MSCLAP, random_clap

        plain = random_clap("gpt2", **MSCLAP)
        heard = msclap_features(samples, one.subject.hf.front_end)  # tested against librosa where it is
        return F.normalize(plain.audio_encoder.projection(plain.htsat(heard)[0]), dim=-1)[0]
    hf = getattr(transformers, one.subject.hf.config.architectures[0]).from_pretrained(one.path).eval()
    rate = {"clap": 48_000}.get(one.case.family, 16_000)
    inputs = dict(AutoFeatureExtractor.from_pretrained(one.path)(samples, sampling_rate=rate, return_tensors="pt"))
    if one.case.family == "speech2text":
        inputs["decoder_input_ids"] = torch.tensor([[hf.config.decoder_start_token_id]])
    elif one.case.family == "speecht5":
        inputs["decoder_input_ids"] = torch.tensor([[2, 4]])  # the start, then a space
    elif one.case.family.startswith("seamless"):
        english = hf.generation_config.text_decoder_lang_to_code_id["eng"]
        inputs["decoder_input_ids"] = torch.tensor([[hf.config.decoder_start_token_id, english]])
    elif one.case.family in ("canary", "cohere"):
        inputs.pop("audio_chunk_index", None)
        inputs["decoder_input_ids"] = torch.tensor([asked_by_the_library(one)])
    elif one.case.reads == "words":
        words = AutoTokenizer.from_pretrained(one.path)
        asked = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")
        asked = ("<s>",) if one.case.family in ("moonshine", "streaming") else asked
        inputs["decoder_input_ids"] = torch.tensor([words.convert_tokens_to_ids(list(asked))])
    if one.case.reads == "texts":
        texts = AutoTokenizer.from_pretrained(one.path)(TEXTS, padding=True, return_tensors="pt")
        return hf(**inputs, **texts).audio_embeds[0]
    return answer(one, inputs, hf)[0]


def asked_by_the_library(one: Opened) -> list[int]:
    """The tokens that NeMo's multitask models are asked for an English transcript with."""
    words = AutoTokenizer.from_pretrained(one.path)
    if one.case.family == "cohere":
        extractor = AutoFeatureExtractor.from_pretrained(one.path)
        return transformers.CohereAsrProcessor(extractor, words).get_decoder_prompt_ids("en")
    task = ("startofcontext", "startoftranscript", "emo:undefined", "en", "en", "pnc", "noitn", "notimestamp")
    return words.convert_tokens_to_ids([f"<|{name}|>" for name in (*task, "nodiarize")])


# ---- plain hooks -----------------------------------------------------------------------------------------------------


def hook(one: Opened, kind: str, layer: int, change: Callable[[Tensor], Tensor | None]) -> Any:
    """Register a plain torch hook that shows `change` the activation and puts in what it returns, if anything.

    It is put in front of the library's own hooks, which record the states that a weighted sum of layers reads.
    """
    if kind == "resid_post" and layer == -1:
        kind, layer = "resid_pre", 0
    module = module_of(one, kind, layer)

    def before(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        new = change(args[0] if args else kwargs["hidden_states"])
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    def after(_module: Any, _args: Any, output: Any) -> Any:
        new = change(output[0] if isinstance(output, tuple) else output)
        if new is None:
            return None
        return (new, *output[1:]) if isinstance(output, tuple) else new

    if is_input(kind):
        return module.register_forward_pre_hook(before, prepend=True, with_kwargs=True)
    return module.register_forward_hook(after, prepend=True)


def seen(one: Opened, inputs: Mapping[str, Tensor], kind: str, layers: Sequence[int]) -> dict[int, Tensor]:
    """What plain hooks see at a kind of site, in the library's own shapes."""
    values: dict[int, Tensor] = {}
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(hook(one, kind, layer, lambda v, layer=layer: values.update({layer: v.clone()})).remove)
        answer(one, inputs)
    return values


def naive_sweep(
    one: Opened,
    names: tuple[str, str],
    kind: str,
    layers: Sequence[int],
    places: tuple[Sequence[int], Sequence[float]] | None,
    alpha: float = 1.0,
) -> Tensor:
    """Patch one layer after the other: [n_layers, n] answers of recipient names[0] given donor names[1].

    Args:
        places: recipient positions and the donor positions that go there, read off between positions by numpy's own
            interpolation; None mixes the whole activation.
    """
    recipient, donor = (one.stems[name].inputs for name in names)
    donors, rows = seen(one, donor, kind, layers), []
    for layer in layers:
        incoming = donors[layer]

        def change(value: Tensor, incoming: Tensor = incoming) -> Tensor:
            if places is None:
                return (1 - alpha) * value + alpha * incoming
            value = value.clone()
            at = np.arange(incoming.shape[1])
            columns = [np.interp(places[1], at, column) for column in incoming[0].double().numpy().T]
            new = torch.from_numpy(np.stack(columns, -1)).float()
            for position, row in zip(places[0], new, strict=True):
                value[0, position] = (1 - alpha) * value[0, position] + alpha * row
            return value

        handle = hook(one, kind, layer, change)
        rows.append(answer(one, recipient)[0])
        handle.remove()
    return torch.stack(rows)
