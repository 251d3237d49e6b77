"""Every family of audio LLM opens from its folder, and is patched at every site as its own forward would be."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from interp_core.experiments.patching.windows import Span
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.sites import Kind
from interp_core.trace.clean import CleanRun, clean_runs, prompt_clip
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.sweep import sweep
from tests.families.audio_llms import FAMILIES
from tests.models.conftest import AUDIO_LLM_CLIPS, OpenFamily, Runs, clip_for
from tests.tiny import tone
from tests.trace.cases import all_cases, every_layer, everywhere, resampled, truncated, whole_vocabulary
from tests.trace.naive import PROMPT, gap, in_rows

AUDIO_TOKENS = {
    "qwen3_asr": "<|audio_pad|>",
    "audioflamingo3": "<sound>",
    "musicflamingo": "<sound>",
    "glmasr": "<|pad|>",
    "fun_asr_nano": "<|object_ref_start|>",
    "moss_transcribe_diarize": "<|audio_pad|>",
    "voxtral": "[AUDIO]",
    "granite_speech": "<|audio|>",
    "granite_speech_plus": "<|audio|>",
    "phi4_multimodal": "<|audio|>",
    "vibevoice_asr": "<|box_start|>",
    **dict.fromkeys(("gemma4", "gemma4_unified"), "<|audio|>"),
    "gemma3n": "<audio_soft_token>",
    "ultravox": "<|audio|>",
}
POSITIONS = {  # of 1.3 s: by the formulas of the families' processors, worked by hand
    "qwen2_audio": 32,  # 130 mel frames -> 65 -> (65 - 2) // 2 + 1
    "qwen2_5_omni_thinker": 32,
    "qwen2_5_omni": 32,
    "qwen3_omni_moe_thinker": 17,  # 13 of the first second, and 30 frames -> 15 -> 8 -> 4
    "qwen3_asr": 17,
    "audioflamingo3": 32,
    "musicflamingo": 32,
    "glmasr": 16,  # 130 frames -> 65 -> 65 // 4
    "fun_asr_nano": 22,  # (20800 - 400) // 160 + 1 = 128 frames, of 6
    "moss_transcribe_diarize": 17,  # 130 frames -> 65, of 4
    "voxtral": 17,  # of 8 frames, the last one half silence
    "vibevoice_asr": 10,  # of 3200 samples at 24 kHz
    "granite_speech": 15,  # 131 frames -> 65 pairs -> 5 windows of 15, of 3 positions each
    "granite_speech_plus": 15,
    "phi4_multimodal": 16,  # (20800 - 400) // 160 + 1 = 128 frames, of 8
    "gemma4": 33,  # (20800 + 160 - 321) // 160 + 1 = 129 frames -> 65 -> 33
    "gemma4_unified": 33,  # 20800 samples, of 640, the last one half silence
    "gemma3n": 8,  # 20864 samples, filled up to 128s: (20864 - 513) // 160 + 1 = 128 frames, of 16
    "ultravox": 9,  # 130 frames, of 16
}
EXACT_LAYERS = {  # of five, the last two of which read keys and values that layers 1 and 2 have made
    "gemma4": range(4, 5),  # every layer takes a vector of each position that follows from what entered the first
    "gemma4_unified": range(-1, 1),
    "gemma3n": range(4, 5),
}
LOGITS_DIVISOR = {"granite_speech": 2.0, "granite_speech_plus": 2.0}

every_family = pytest.mark.parametrize("family", FAMILIES)


def blocks_of(hf: Any) -> nn.ModuleList:
    """Find the decoder's blocks by their class, not by the table."""
    (found,) = [
        module
        for name, module in hf.named_modules()
        if isinstance(module, nn.ModuleList) and type(module[0]).__name__.endswith("DecoderLayer")
    ]
    return found


@torch.inference_mode()
def library_logits(subject: AudioLLM, run: CleanRun) -> Tensor:
    """The untouched forward's last position, under the scale with which the family was trained."""
    family = subject.hf.config.model_type
    return subject.hf(**run.prompted.inputs, use_cache=False).logits[0, -1].float() / LOGITS_DIVISOR.get(family, 1)


def with_states(subject: AudioLLM, run: CleanRun) -> tuple[Tensor, ...] | None:
    """The library's own states; of OpenS2S those of its decoder, which alone is the library's."""
    if subject.hf.config.model_type == "omnispeech":
        made = subject.hf.llm_model(inputs_embeds=run.prompted.embeds[None], output_hidden_states=True)
    else:
        made = subject.hf(**run.prompted.inputs, use_cache=False, output_hidden_states=True)
    return made.hidden_states and tuple(torch.cat(list(s), -1) if s.ndim == 4 else s for s in made.hidden_states)


def swept(subject: AudioLLM, patches: list[Patch], spec: SiteSpec, method: str) -> Tensor:
    found = sweep(subject, patches, whole_vocabulary(patches[0].recipient), spec, method=method)
    assert found.edits == len(patches) * len(spec.layers)
    return found.label_logits


@pytest.mark.parametrize("family", POSITIONS)  # two have no placeholder token: see test_opens2s_subject and test_kimi
def test_the_span_is_the_audio_placeholders_that_hold_sound(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs], family: str
) -> None:
    subject, run = opened(family), runs_of_family(family)["long"]
    start, stop = run.prompted.audio
    assert stop - start == POSITIONS[family]
    marker = AUDIO_TOKENS.get(family, "<|AUDIO|>")
    words = subject.tokenizer.convert_ids_to_tokens(run.prompted.token_ids.tolist())
    assert words[start:stop] == [marker] * (stop - start) and words[start - 1] != marker
    silence = words[stop:].count(marker)
    # Windows are filled up: of 4 s and 5.44 s here, of 30 s in truth.
    assert silence == {"voxtral": 50 - 17, "gemma3n": 34 - 8}.get(family, 0)
    assert abs((stop - start) * run.prompted.seconds_per_position - 1.3) < 0.25
    assert subject.chat_text(PROMPT).count(marker) == 1 and PROMPT in subject.chat_text(PROMPT)
    subject.check_prompt(PROMPT)
    assert subject.describe(run.prompted)["tokens_in_span"] == [marker]


@every_family
def test_clean_logits_and_layers_are_the_librarys_own(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs], family: str
) -> None:
    subject, runs = opened(family), runs_of_family(family)
    for run in runs.values():
        assert gap(run.logits, library_logits(subject, run)) < 1e-5
    assert gap(runs["middle"].logits, runs["twin"].logits) > 1e-2  # control: the recording is heard
    run, blocks = runs["long"], blocks_of(subject.hf)
    seen: list[Tensor] = []
    look = in_rows(seen.append)
    handles = [
        block.register_forward_hook(lambda _m, _a, out: look(out[0] if isinstance(out, tuple) else out))
        for block in blocks
    ]
    with torch.inference_mode():
        states = with_states(subject, run)
    for handle in handles:
        handle.remove()
    assert len(run.resid) == len(blocks) + 1 == len(seen) + 1 == subject.n_layers + 1
    for layer, state in enumerate(seen):
        assert gap(run.resid[layer + 1], state.reshape(run.resid[layer + 1].shape)) < 1e-5, layer
    if states is not None:  # the last one is behind the final norm
        for layer, state in enumerate(states[:-1]):
            assert gap(run.resid[layer], state[0]) < 1e-5, layer


@every_family
def test_clips_of_unequal_length_come_out_of_one_batch_as_alone(opened: OpenFamily, family: str) -> None:
    subject = opened(family)
    stems = [
        prompt_clip(subject, clip_for(subject, *AUDIO_LLM_CLIPS[name]), PROMPT, name) for name in ("short", "long")
    ]
    together = clean_runs(subject, stems)
    for stem, run in zip(stems, together, strict=True):
        assert len(run.resid[0]) == stem.n_pos
        assert gap(run.logits, library_logits(subject, run)) < 1e-5


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        (family, kind)
        for family in FAMILIES
        for kind in ("resid_post", "attn_out", "mlp_out", "head_out", "mlp_act")
        if (family, kind) != ("qwen3_omni_moe_thinker", "mlp_act")  # experts; tested below
    ],
)
def test_fast_routes_and_plain_hooks_give_the_references_logits(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs], family: str, kind: Kind
) -> None:
    subject, runs = opened(family), runs_of_family(family)
    short, middle, long, twin = (runs[name] for name in ("short", "middle", "long", "twin"))
    patches = [truncated(short, long), truncated(long, middle), resampled(middle, long), truncated(middle, twin, 0.5)]
    spec = every_layer(subject) if kind == "resid_post" else SiteSpec(kind, layers=tuple(range(subject.n_layers)))
    reference = swept(subject, patches, spec, "reference")
    for method in ("fast", "wavefront"):
        assert gap(swept(subject, patches, spec, method), reference) < 1e-4, method
    for patch, rows in zip(patches, reference, strict=True):
        assert gap(rows[:-1], patch.recipient.logits.expand_as(rows[:-1])) > 1e-3  # control: the edit does something
    assert gap(reference[0][1], by_plain_hook(subject, patches[0], kind, spec.layers[1])) < 1e-4


@every_family
def test_windows_patched_alone_and_masked_give_the_references_logits(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs], family: str
) -> None:
    subject, runs = opened(family), runs_of_family(family)
    for kind in ("resid_post", "attn_out", "head_out"):
        whole = truncated(runs["long"], runs["middle"])
        windows = [window.of(whole) for window in Span(whole.recipient.prompted, whole).cut(3)]
        masked = replace(windows[1], donor=whole.recipient, source=whole.positions.double(), averaged=True)
        spec = every_layer(subject) if kind == "resid_post" else SiteSpec(kind, layers=tuple(range(subject.n_layers)))
        reference = swept(subject, [*windows, masked], spec, "reference")
        for method in ("fast", "wavefront"):
            assert gap(swept(subject, [*windows, masked], spec, method), reference) < 1e-4, (kind, method)
        for rows in reference:
            assert gap(rows[:-1], whole.recipient.logits.expand_as(rows[:-1])) > 1e-3  # control: the edit is made
        assert gap(reference[0], reference[1]) > 1e-3  # control: and each in its own window


@torch.inference_mode()
def by_plain_hook(subject: AudioLLM, patch: Patch, kind: Kind, layer: int) -> Tensor:
    """Patch one layer of the library's model with torch hooks; modules are found by their class."""
    block = blocks_of(subject.hf)[layer]
    attention = next(m for m in block.children() if type(m).__name__.endswith("Attention"))
    feed_forward = next(m for m in block.children() if type(m).__name__.endswith(("MLP", "MoeBlock")))
    module, reads_input = {
        "resid_post": (block, False),
        "attn_out": (attention, False),
        "mlp_out": (feed_forward, False),
        "head_out": (attention.o_proj, True),
        "mlp_act": (getattr(feed_forward, "down_proj", None), True),
    }[kind]
    kept: list[Tensor] = []
    positions, source = patch.positions, patch.source.long()

    @in_rows
    def edit(value: Tensor) -> Tensor:
        if not kept:
            kept.append(value.clone())
            return value
        value = value.clone()
        value[0, positions] = kept[0][0, source]
        return value

    def before(_module: nn.Module, args: tuple[Any, ...]) -> Any:
        return (edit(args[0]), *args[1:])

    def after(_module: nn.Module, _args: Any, out: Any) -> Any:
        return (edit(out[0]), *out[1:]) if isinstance(out, tuple) else edit(out)

    handle = module.register_forward_pre_hook(before) if reads_input else module.register_forward_hook(after)
    assert patch.donor is not None
    subject.hf(**patch.donor.prompted.inputs, use_cache=False)
    logits = library_logits(subject, patch.recipient)
    handle.remove()
    return logits


@every_family
def test_a_clip_patched_with_itself_is_left_alone_and_a_whole_donor_answers_instead(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs], family: str
) -> None:
    subject, runs = opened(family), runs_of_family(family)
    own, donor = everywhere(runs["long"], runs["long"]), everywhere(runs["middle"], runs["twin"])
    exact = EXACT_LAYERS.get(family, range(-1, subject.n_layers))
    assert subject.exact_layers == exact  # what the checks before a run rely on
    for method in ("fast", "wavefront", "reference"):
        rows = swept(subject, [own], every_layer(subject), method)[0]
        assert gap(rows, runs["long"].logits.expand_as(rows)) < 1e-4, method
        found = swept(subject, [donor], every_layer(subject), method)[0]
        for layer, row in zip(every_layer(subject).layers, found, strict=True):
            assert (gap(row, runs["twin"].logits) < 1e-4) == (layer in exact or layer == subject.n_layers - 1), layer
            assert gap(row, runs["middle"].logits) > 1e-2  # control: the two answer differently
    for kind in subject.kinds[2:]:
        rows = swept(subject, [own], SiteSpec(kind, layers=(0, 1)), "fast")[0]
        assert gap(rows, runs["long"].logits.expand_as(rows)) < 1e-4, kind


@pytest.mark.parametrize("family", ["qwen2_audio", "qwen2_5_omni", "audioflamingo3", "musicflamingo"])
def test_every_kind_of_patch_in_one_ragged_batch_equals_the_reference(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs], family: str
) -> None:
    subject = opened(family)  # of those that make enough positions of a second for the shared cases
    cases = all_cases(runs_of_family(family))
    patches, spec = list(cases.values()), every_layer(subject)
    reference = swept(subject, patches, spec, "reference")
    for method in ("fast", "wavefront"):
        assert gap(swept(subject, patches, spec, method), reference) < 1e-4, method


@every_family
def test_single_heads_differ_and_equal_the_reference(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs], family: str
) -> None:
    subject, runs = opened(family), runs_of_family(family)
    patch = truncated(runs["long"], runs["middle"])
    rows = []
    for head in (0, 3):
        spec = SiteSpec("head_out", head, subject.d_head, (0, 1))
        rows.append(swept(subject, [patch], spec, "fast")[0])
        assert gap(rows[-1], swept(subject, [patch], spec, "reference")[0]) < 1e-4
    assert gap(*rows) > 1e-3


@every_family
def test_the_answer_words_are_found_where_the_answer_starts(opened: OpenFamily, family: str) -> None:
    subject = opened(family)
    labels = subject.labels(("happy", "sad"), PROMPT, several_tokens="first")
    for label, first in zip(labels.labels, labels.ids, strict=True):
        assert label.startswith(subject.tokenizer.decode([first]))


def test_experts_have_no_neurons_that_stand_for_every_position(opened: OpenFamily) -> None:
    kinds = opened("qwen3_omni_moe_thinker").kinds
    assert "mlp_act" not in kinds and {"mlp_out", "head_out", "attn_out", "resid_post"} <= set(kinds)
    assert "mlp_act" in opened("phi4_multimodal").kinds


@pytest.mark.parametrize(
    ("family", "longest"),
    [
        ("qwen2_audio", 4),
        ("qwen2_5_omni", 6),
        ("audioflamingo3", 600),
        ("musicflamingo", 1200),
        ("glmasr", 655),
        *((name, float("inf")) for name in ("voxtral", "qwen3_asr", "granite_speech", "phi4_multimodal", "ultravox")),
        *((name, float("inf")) for name in ("fun_asr_nano", "moss_transcribe_diarize", "gemma4_unified", "kimi_audio")),
        ("gemma4", 30),
        ("gemma3n", 5.44),
    ],
)
def test_the_longest_clip_that_is_heard_whole_is_the_processors_own(
    opened: OpenFamily, family: str, longest: float
) -> None:
    subject = opened(family)
    assert subject.max_seconds == longest
    if longest > 4:  # longer than the extractor's window, which the tiny folders set to 4 s: nothing is cut
        stem = prompt_clip(subject, tone(5.2, 300), PROMPT, "a")
        start, stop = stem.audio
        assert (stop - start) * stem.seconds_per_position == pytest.approx(5.2, abs=0.3)


class Padding:
    """A processor that pads on the left, as the library's do in a batch."""

    def __init__(self, inner: Any, width: int) -> None:
        self.inner, self.width = inner, width

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, **asked: Any) -> dict[str, Tensor]:
        made = dict(self.inner(**asked))
        pads = torch.full((1, self.width), self.inner.tokenizer.pad_token_id)
        made["input_ids"] = torch.cat([pads, made["input_ids"]], 1)
        made["attention_mask"] = torch.cat([torch.zeros_like(pads), made["attention_mask"]], 1)
        return made


def test_padding_is_no_audio_though_it_is_the_same_token(opened: OpenFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = opened("glmasr")
    alone = prompt_clip(subject, tone(0.8, 350), PROMPT, "a")
    assert subject.tokenizer.pad_token_id == subject.audio_token_id
    assert alone.audio[1] - alone.audio[0] == 10
    monkeypatch.setattr(subject, "processor", Padding(subject.processor, 7))
    padded = prompt_clip(subject, tone(0.8, 350), PROMPT, "a")
    assert padded.audio == alone.audio and torch.equal(padded.token_ids, alone.token_ids)
    assert gap(padded.embeds, alone.embeds) < 1e-6


def test_the_library_leaves_granites_scale_out_of_the_logits(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs]
) -> None:
    # If this fails, the library divides by itself, and the column `logits_divisor` has to go.
    subject, run = opened("granite_speech"), runs_of_family("granite_speech")["long"]
    hf = subject.hf
    assert hf.config.text_config.logits_scaling == 2.0
    with torch.inference_mode():
        plain = hf.lm_head(hf.model.language_model.norm(run.resid[-1][-1])).float()
        assert gap(hf(**run.prompted.inputs).logits[0, -1], plain) < 1e-5
    assert gap(run.logits, plain / 2) < 1e-5


def test_a_stem_that_adds_noise_is_told_not_to(opened: OpenFamily) -> None:
    subject = opened("vibevoice_asr")
    inputs = subject.model_inputs(clip_for(subject, 0.8, 350), PROMPT)
    assert inputs["sample"] is False
    with torch.inference_mode():
        noisy = [subject.hf(**{**inputs, "sample": True}).logits[0, -1] for _ in range(2)]
        assert not torch.equal(*noisy)  # control: the library's default is another answer every time
        assert torch.equal(subject.forward(inputs), subject.forward(inputs))
