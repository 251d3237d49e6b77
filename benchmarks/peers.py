"""The same sweep written with nnsight, TransformerLens, pyvene and baukit, where they are installed.

All get the decoder alone, fed with embeddings: a `Qwen2ForCausalLM` with the subject's weights. TransformerLens would
otherwise look for a processor and, not finding torchvision, run `pip install` by itself.
"""

import contextlib
import io
import logging
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from benchmarks.scene import LABELS
from benchmarks.ways import Pairs, Way, shared_span
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.prompted import Prompted


def peers(subject: AudioLLM, points: tuple[int, ...]) -> tuple[list[Way], list[str]]:
    """Return the ways of the peers that can be imported, and a line about each that cannot."""
    ways: list[Way] = []
    skipped: list[str] = []
    for name, make in (
        ("nnsight", _nnsight),
        ("transformer_lens", _transformer_lens),
        ("pyvene", _pyvene),
        ("baukit", _baukit),
    ):
        try:
            ways += make(subject, points)
        except Exception as error:  # another project's failure to start must not end the benchmark
            skipped.append(f"{name} skipped: {type(error).__name__}: {str(error).splitlines()[0][:160]}")
    return ways, skipped


def decoder_alone(subject: AudioLLM) -> Qwen2ForCausalLM:
    """Copy the decoder into the text model's own class; a copy, since TransformerLens renames modules in place."""
    with torch.device(subject.device):
        model = Qwen2ForCausalLM(type(subject.sizes)(**subject.sizes.to_dict()))
    model.model.load_state_dict(subject.decoder.state_dict())
    model.lm_head.load_state_dict(subject.hf.lm_head.state_dict())
    return model.eval()


def _nnsight(subject: AudioLLM, points: tuple[int, ...]) -> list[Way]:
    import nnsight

    model = nnsight.NNsight(decoder_alone(subject))
    layers = model.model.layers
    ids = list(LABELS.ids)

    def states_of(clips: Sequence[Prompted], pairs: Pairs) -> dict[int, list[Tensor]]:
        """Return what enters block 0 and leaves each block, of each clip, in one trace a clip."""
        states = {}
        for i in dict.fromkeys(i for pair in pairs for i in pair):
            kept = [clips[i].embeds[None]]
            with model.trace(inputs_embeds=clips[i].embeds[None], use_cache=False, logits_to_keep=1):
                for layer in range(subject.n_layers):
                    kept.append(layers[layer].output.save())
            states[i] = kept
        return states

    @torch.inference_mode()
    def loop(clips: Sequence[Prompted], pairs: Pairs) -> Tensor:
        states, logits = states_of(clips, pairs), []
        for a, b in pairs:
            first, stop = shared_span(clips[a], clips[b])
            for layer in points:
                embeds, donor = clips[a].embeds[None], states[b][layer + 1][:, first:stop]
                if layer == -1:
                    embeds = torch.cat([embeds[:, :first], donor, embeds[:, stop:]], 1)
                with model.trace(inputs_embeds=embeds, use_cache=False, logits_to_keep=1):
                    if layer >= 0:
                        layers[layer].output[:, first:stop] = donor
                    out = model.lm_head.output[0, -1].save()
                logits.append(out[ids].float().cpu())
        return torch.stack(logits).view(len(pairs), len(points), -1)

    @torch.inference_mode()
    def skipping(clips: Sequence[Prompted], pairs: Pairs) -> Tensor:
        states, logits = states_of(clips, pairs), []
        for a, b in pairs:
            first, stop = shared_span(clips[a], clips[b])
            for layer in points:
                own, donor = states[a][layer + 1], states[b][layer + 1]
                edited = torch.cat([own[:, :first], donor[:, first:stop], own[:, stop:]], 1)
                embeds = edited if layer == -1 else clips[a].embeds[None]
                with model.trace(inputs_embeds=embeds, use_cache=False, logits_to_keep=1):
                    for done in range(layer + 1):
                        layers[done].skip(edited)
                    out = model.lm_head.output[0, -1].save()
                logits.append(out[ids].float().cpu())
        return torch.stack(logits).view(len(pairs), len(points), -1)

    version = nnsight.__version__
    return [
        Way(f"nnsight {version}, a trace a layer", loop, heavy=True),
        Way(f"nnsight {version}, patched blocks skipped by hand", skipping, heavy=True),
    ]


def _transformer_lens(subject: AudioLLM, points: tuple[int, ...]) -> list[Way]:
    from importlib.metadata import version

    logging.disable(logging.WARNING)
    try:
        from transformer_lens.model_bridge import TransformerBridge

        words = PreTrainedTokenizerFast(  # without a BOS token, or a second one would be fetched by name
            tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0, "a": 1}, unk_token="<pad>")),
            pad_token="<pad>",
            eos_token="<pad>",
        )
        with contextlib.redirect_stdout(io.StringIO()):
            bridge = TransformerBridge.boot_transformers(
                "random-qwen2", hf_model=decoder_alone(subject), tokenizer=words, device=str(subject.device)
            )
    finally:
        logging.disable(logging.NOTSET)
    ids = list(LABELS.ids)
    names = {layer: "blocks.0.hook_resid_pre" if layer == -1 else f"blocks.{layer}.hook_resid_post" for layer in points}

    @torch.inference_mode()
    def loop(clips: Sequence[Prompted], pairs: Pairs) -> Tensor:
        caches = {}
        for i in dict.fromkeys(i for pair in pairs for i in pair):
            caches[i] = bridge.run_with_cache(clips[i].embeds[None], names_filter=list(names.values()))[1]
        logits = []
        for a, b in pairs:
            first, stop = shared_span(clips[a], clips[b])
            for layer in points:

                def put(value: Tensor, hook: object, donor: Tensor = caches[b][names[layer]]) -> Tensor:
                    value = value.clone()  # at the first hook it is the caller's own tensor of embeddings
                    value[:, first:stop] = donor[:, first:stop]  # noqa: B023 (called within this turn of the loop)
                    return value

                out = bridge.run_with_hooks(clips[a].embeds[None], fwd_hooks=[(names[layer], put)])
                logits.append(out[0, -1, ids].float().cpu())
        return torch.stack(logits).view(len(pairs), len(points), -1)

    return [Way(f"TransformerLens {version('transformer-lens')}, run_with_hooks a layer", loop, heavy=True)]


def _embeds_with(clips: Sequence[Prompted], a: int, b: int) -> Tensor:
    """[1, pos, d_model] the recipient's embeddings with the donor's in the audio that both have."""
    (first, stop), embeds = shared_span(clips[a], clips[b]), clips[a].embeds[None].clone()
    embeds[:, first:stop] = clips[b].embeds[None, first:stop]
    return embeds


def _pyvene(subject: AudioLLM, points: tuple[int, ...]) -> list[Way]:
    from importlib.metadata import version

    import pyvene

    model, ids = decoder_alone(subject), list(LABELS.ids)
    made = {
        layer: pyvene.IntervenableModel(
            pyvene.IntervenableConfig(
                [{"layer": layer, "component": "block_output", "intervention_type": pyvene.VanillaIntervention}]
            ),
            model=model,
        )
        for layer in points
        if layer >= 0
    }

    @torch.inference_mode()
    def loop(clips: Sequence[Prompted], pairs: Pairs) -> Tensor:
        states, logits = {}, []
        for i in dict.fromkeys(i for pair in pairs for i in pair):
            # Collected with hooks: the library's own list of hidden states ends with the normed one.
            kept: list[Tensor] = []
            handles = [
                block.register_forward_hook(lambda _m, _a, out, kept=kept: kept.append(out))
                for block in model.model.layers
            ]
            model(inputs_embeds=clips[i].embeds[None], use_cache=False, logits_to_keep=1)
            for handle in handles:
                handle.remove()
            states[i] = kept
        for a, b in pairs:
            first, stop = shared_span(clips[a], clips[b])
            where = list(range(first, stop))
            for layer in points:
                if layer == -1:
                    out = model(inputs_embeds=_embeds_with(clips, a, b), use_cache=False, logits_to_keep=1)
                else:
                    [name] = made[layer].interventions
                    _, out = made[layer](
                        {"inputs_embeds": clips[a].embeds[None], "use_cache": False, "logits_to_keep": 1},
                        unit_locations={"sources->base": ([[where]], [[where]])},
                        source_representations={name: states[b][layer][:, first:stop]},
                    )
                logits.append(out.logits[0, -1, ids].float().cpu())
        return torch.stack(logits).view(len(pairs), len(points), -1)

    return [Way(f"pyvene {version('pyvene')}, an intervention a layer", loop, heavy=True)]


def _baukit(subject: AudioLLM, points: tuple[int, ...]) -> list[Way]:
    from nethook import Trace, TraceDict  # baukit's module; the package around it imports torchvision

    model, ids = decoder_alone(subject), list(LABELS.ids)
    names = {layer: f"model.layers.{layer}" for layer in points if layer >= 0}

    @torch.inference_mode()
    def loop(clips: Sequence[Prompted], pairs: Pairs) -> Tensor:
        states, logits = {}, []
        for i in dict.fromkeys(i for pair in pairs for i in pair):
            with TraceDict(model, list(names.values())) as kept:
                model(inputs_embeds=clips[i].embeds[None], use_cache=False, logits_to_keep=1)
            states[i] = {layer: kept[name].output for layer, name in names.items()}
        for a, b in pairs:
            first, stop = shared_span(clips[a], clips[b])
            for layer in points:
                if layer == -1:
                    out = model(inputs_embeds=_embeds_with(clips, a, b), use_cache=False, logits_to_keep=1)
                else:
                    donor = states[b][layer][:, first:stop]

                    def put(output: Tensor) -> Tensor:  # baukit hands over what is named as it likes
                        output = output.clone()
                        output[:, first:stop] = donor  # noqa: B023 (called within this turn of the loop)
                        return output

                    with Trace(model, names[layer], edit_output=put):
                        out = model(inputs_embeds=clips[a].embeds[None], use_cache=False, logits_to_keep=1)
                logits.append(out.logits[0, -1, ids].float().cpu())
        return torch.stack(logits).view(len(pairs), len(points), -1)

    return [Way("baukit, a trace a layer", loop, heavy=True)]
