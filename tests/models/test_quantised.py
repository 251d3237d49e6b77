"""Weights of 8 and 4 bits: what is refused in a sentence, and that every route gives the numbers of the model's own
forward where the package bitsandbytes is installed."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BitsAndBytesConfig, Qwen2AudioForConditionalGeneration

from interp_core.errors import InterpError
from interp_core.experiments.checks import TOLERANCE
from interp_core.models import quantised
from interp_core.models.load import Opening, open_model
from interp_core.trace.clean import clean_runs, prompt_clip
from interp_core.trace.patch import SiteSpec
from interp_core.trace.sweep import sweep
from tests.families.audio_llms import FAMILIES
from tests.families.encoders import save_wavlm
from tests.tiny import tone
from tests.trace.cases import every_layer, truncated, whole_vocabulary
from tests.trace.naive import PROMPT, gap

WIDE = {"d_model": 64}  # of as many numbers as share a scale in 4 bits


def refused(name: Path | str, **how: Any) -> str:
    with pytest.raises(InterpError) as error:
        open_model(str(name), device="cpu", **how)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised, "find_spec", lambda _name: object())


def test_without_the_packages_few_bits_are_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised, "find_spec", lambda name: None if name == "bitsandbytes" else object())
    for dtype in ("int8", "int4"):
        words = refused("no such model", dtype=dtype)  # the first thing that is looked at
        assert f"--dtype {dtype} takes the package bitsandbytes, not installed here; pip install bitsandbytes" in words
    monkeypatch.setattr(quantised, "find_spec", lambda _name: None)
    assert "takes the packages bitsandbytes and accelerate" in refused("no such model", dtype="int8")
    assert "dtype 'int2' is none of auto, float32, bfloat16, float16, int8, int4" in refused("no such", dtype="int2")


def test_few_bits_go_with_audio_llms_alone(installed: None, tmp_path: Path, tiny_folder: Path) -> None:
    assert "--dtype int8 goes with audio LLMs" in refused(save_wavlm(tmp_path / "wavlm"), dtype="int8")
    granite = FAMILIES["granite_speech"](tmp_path / "granite")
    assert "that have no adapter of their own" in refused(granite, dtype="int4")
    (tmp_path / "run").mkdir()
    torch.save({}, tmp_path / "run" / "best.pt")
    assert "is a weight file, and --dtype int8 goes with audio LLMs alone" in refused(
        tmp_path / "run" / "best.pt", dtype="int8"
    )
    opening = Opening("m", str(tiny_folder), None, torch.device("cpu"), torch.float32, False, tmp_path, bits="int8")
    with pytest.raises(InterpError, match="leave --adapter out, or open the whole weights"):
        opening.placed(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            {"quant_method": "gptq", "bits": 4},
            r"are quantised \(gptq\), which takes the package gptqmodel, not installed",
        ),
        ({"quant_method": "compressed-tensors"}, "takes the package compressed_tensors"),
        ({"quant_method": "fp8"}, "quantised as fp8, which GPUs alone compute with"),
        ({"quant_method": "made_up"}, "quantised by 'made_up', which is not known here"),
        ({"bits": 4}, "quantised by None, which is not known here"),
    ],
)
def test_a_folder_with_quantised_weights_says_what_it_takes(
    told: dict[str, Any], words: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantised, "find_spec", lambda _name: None)
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": told}))
    message = refused(folder)
    assert re.search(words, message), message


@pytest.mark.parametrize("family", ["qwen2_audio", "ultravox", "kimi_audio"])
@pytest.mark.parametrize(("dtype", "kind"), [("int8", "Linear8bitLt"), ("int4", "Linear4bit")])
def test_with_bitsandbytes_every_route_gives_the_models_own_numbers(
    family: str, dtype: str, kind: str, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    folder = FAMILIES[family](tmp_path / "model", **WIDE)
    whole, few = (open_model(str(folder), device="cpu", dtype=name) for name in ("bfloat16", dtype))
    assert few.precision == dtype and few.dtype == torch.bfloat16 and few.key != whole.key
    made = {name for name, module in few.hf.named_modules() if type(module).__name__ == kind}
    assert len(made) == 7 * few.n_layers and all(name.startswith(few.arch.blocks) for name in made)
    a, b = (
        clean_runs(few, [prompt_clip(few, tone(seconds, hertz), PROMPT, "a")], few.kinds)[0]
        for seconds, hertz in ((1.3, 300), (0.8, 500))
    )
    stem = prompt_clip(whole, tone(1.3, 300), PROMPT, "a")
    assert torch.equal(stem.embeds, a.prompted.embeds)  # the stem is whole
    assert 1e-3 < gap(clean_runs(whole, [stem])[0].logits, a.logits)  # control: and the blocks are not
    patches = [truncated(a, b), truncated(b, a, 0.5)]
    for site in ("resid_post", "head_out", "mlp_act"):
        spec = every_layer(few) if site == "resid_post" else SiteSpec(site, layers=tuple(range(few.n_layers)))
        found = {
            method: sweep(few, patches, whole_vocabulary(a), spec, method=method).label_logits
            for method in ("reference", "wavefront", "fast")
        }
        for method in ("fast", "wavefront"):
            assert gap(found[method], found["reference"]) < TOLERANCE[torch.bfloat16], (site, method)
        assert gap(found["reference"][:, 0], found["reference"][:, -1]) > 0.1  # control: layers differ by far more
    together = clean_runs(few, [a.prompted, b.prompted])
    assert gap(together[1].logits, b.logits) < TOLERANCE[torch.bfloat16]


def test_with_bitsandbytes_it_is_the_librarys_own_model_and_opens_again_when_saved(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    folder = FAMILIES["qwen2_audio"](tmp_path / "model", **WIDE)
    few = open_model(str(folder), device="cpu", dtype="int4")
    skipped = ["model.audio_tower", "model.multi_modal_projector", "lm_head"]
    told = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=skipped,
    )
    own = Qwen2AudioForConditionalGeneration.from_pretrained(
        folder, quantization_config=told, dtype=torch.bfloat16, device_map={"": "cpu"}
    )
    shutil.copytree(folder, tmp_path / "saved", ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    own.save_pretrained(tmp_path / "saved")
    inputs = few.model_inputs(tone(0.8, 350), PROMPT)
    with torch.inference_mode():
        expected = own(**inputs).logits[0, -1].float()
        assert gap(few.forward(inputs)[0], expected) < 1e-5
    again = open_model(str(tmp_path / "saved"), device="cpu", dtype="bfloat16")
    with torch.inference_mode():
        assert gap(again.forward(inputs)[0], expected) < 1e-5
    assert "are quantised already" in refused(tmp_path / "saved", dtype="int8")
