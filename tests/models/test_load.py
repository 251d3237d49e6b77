"""Opening models: the real layout opens, everything else is one sentence that says what to do."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, Qwen2AudioForConditionalGeneration, Qwen2Config, Qwen2ForCausalLM

from interp_core.errors import InterpError
from interp_core.models.arch import ARCHS, ENCODERS
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.lacking import LACKING
from interp_core.models.listeners import LISTENERS
from interp_core.models.load import open_model, pick_device, pick_dtype
from tests.tiny import RATE, save_qwen2_audio, tokenizer, tone
from tests.trace.naive import PROMPT, gap


def refusal(name: str | Path, **settings: str) -> str:
    """Return the message with which a model is refused: one readable line, whatever the library printed."""
    with pytest.raises(InterpError) as error:
        open_model(str(name), **settings)
    message = str(error.value)
    assert "\n" not in message and 20 < len(message) < 600 and "Traceback" not in message
    return message


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def test_a_folder_in_the_real_layout_opens_with_the_weights_that_were_saved(tiny_folder: Path) -> None:
    names = {path.name for path in tiny_folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "processor_config.json"} <= names
    subject = open_model(str(tiny_folder), device="cpu")
    assert isinstance(subject, AudioLLM) and isinstance(subject.hf, Qwen2AudioForConditionalGeneration)
    assert (subject.n_layers, subject.n_heads, subject.d_model, subject.d_head) == (5, 4, 48, 12)
    assert (subject.sample_rate, subject.max_seconds, subject.dtype) == (RATE, 4.0, torch.float32)
    assert not subject.hf.training and not any(p.requires_grad for p in subject.hf.parameters())
    saved = load_file(tiny_folder / "model.safetensors")
    weights = {key.removeprefix("model."): value for key, value in subject.hf.state_dict().items()}
    for key, value in saved.items():
        short = key.removeprefix("model.").replace("language_model.model.", "language_model.")
        assert torch.equal(weights[short.replace("language_model.lm_head", "lm_head")], value), key
    direct = Qwen2AudioForConditionalGeneration.from_pretrained(tiny_folder)
    inputs = subject.model_inputs(tone(0.8, 350), PROMPT)
    with torch.inference_mode():
        assert torch.equal(direct(**inputs).logits, subject.hf(**inputs).logits)


def test_what_is_no_folder_is_refused_by_what_it_is(tmp_path: Path) -> None:
    message = refusal(tmp_path / "nowhere")
    assert "no folder or file on this machine" in message and "owner/model" in message
    assert "no folder or file on this machine" in refusal("some-name")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert "is a file; give the folder" in refusal(tmp_path / "model.safetensors")
    (tmp_path / "empty").mkdir()
    assert "holds no config.json" in refusal(tmp_path / "empty")


def test_a_folder_without_a_processor_is_told_which_files_to_copy(folder: Path) -> None:
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink()
    message = refusal(folder)
    assert "has no processor" in message and "copy processor_config.json" in message


def test_a_folder_without_a_chat_template_takes_the_one_of_its_processor_class(folder: Path, tiny_folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    bare, full = open_model(str(folder)), open_model(str(tiny_folder))
    assert bare.chat_text("Hm?") == full.chat_text("Hm?") and bare.chat_text("Hm?").count("<|AUDIO|>") == 1


def test_a_tokenizer_alone_is_no_processor(folder: Path) -> None:
    (folder / "processor_config.json").unlink()
    assert "has no processor" in refusal(folder)


def test_a_text_model_is_refused_by_its_type(tmp_path: Path) -> None:
    words = tokenizer()
    config = Qwen2Config(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert f"{tmp_path} is a Qwen2ForCausalLM (type qwen2), which is not known here, so it cannot be opened;" in message
    assert message.endswith("`models` lists what can, and what hears and cannot.")


def test_what_is_said_of_an_unknown_type_is_for_who_opens_it_and_not_for_who_writes_this(tmp_path: Path) -> None:
    known = ARCHS.keys() | ENCODERS.keys() | LISTENERS.keys() | {"clap_audio_model"}
    kinds = [kind for kind in sorted(CONFIG_MAPPING) if kind not in known]
    assert len(kinds) > 400
    for kind in [*kinds[::9], *LACKING, "minicpmo", "zzz", None, 3, ["wavlm"], ""]:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        message = refusal(tmp_path)
        assert not re.search(r"\.py|ARCH|ENCODERS|LISTENERS|LACKING|\brow\b|\btables?\b(?!-)|interp_core", message)
        assert "`models` lists what can" in message or "says no model_type" in message, message
        assert str(kind) in message or not isinstance(kind, str)


@pytest.mark.parametrize("kind", sorted(LACKING))
def test_a_model_that_hears_and_cannot_be_a_row_says_which_part_is_in_the_way(kind: str, tmp_path: Path) -> None:
    assert kind not in ARCHS and kind not in ENCODERS and kind not in LISTENERS
    assert kind in CONFIG_MAPPING or kind == "desta25"  # which comes with code of its own
    parts = {"encoder": {"model_type": "wavlm"}, "decoder": {"model_type": "bert"}} if "-dec" in kind else {}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, **parts}))
    message = refusal(tmp_path)
    assert f"models of the type {kind} cannot be opened: " in message
    lacks = ("readout does not fit", "there is no readout", "no transformer blocks", "no position holds the recording")
    lacks += ("the stem is not known here", "the blocks do not fit")
    assert any(lack in message for lack in lacks)


def test_a_voxtral_that_streams_says_what_it_lacks_and_so_it_is_in_the_librarys_model(tmp_path: Path) -> None:
    block = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 16}
    config = transformers.VoxtralRealtimeConfig(
        text_config={"model_type": "voxtral_realtime_text", **block, "num_key_value_heads": 2, "vocab_size": 40},
        audio_config={"model_type": "voxtral_realtime_encoder", **block, "head_dim": 8, "num_mel_bins": 4},
    )
    hf = transformers.VoxtralRealtimeForConditionalGeneration(config).eval()
    hf.save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert "there is no readout: it is asked nothing and writes a token for every 80 ms while it hears" in message
    assert "each is the sum of a frame of sound and of the token that was written there" in message
    words, mel, entered = torch.tensor([[1, 5, 7]]), torch.randn(1, 4, 3 * config.audio_length_per_tok), []
    hf.model.language_model.layers[0].register_forward_pre_hook(lambda _block, args: entered.append(args[0]))
    with torch.inference_mode():
        logits = hf(input_ids=words, input_features=mel, num_delay_tokens=1, use_cache=False).logits
        sound = hf.model.get_audio_features(mel).pooler_output
        torch.testing.assert_close(entered[0], hf.model.get_input_embeddings()(words) + sound)
        with pytest.raises(RuntimeError, match="must match"):  # as many tokens as frames: those that it has written
            hf(input_ids=words[:, :2], input_features=mel, num_delay_tokens=1, use_cache=False)
    assert logits.shape[1] == 3


def change_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def break_json(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text()[:100])


def cut_weights(folder: Path, keep: float) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def drop_weight(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights[next(key for key in weights if key.endswith("layers.3.mlp.down_proj.weight"))]
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda f: cut_weights(f, 0.5), "the weights of .* cannot be read: .*cut short, fetch it again"),
        (lambda f: cut_weights(f, 0.0), "the weights of .* cannot be read"),
        (lambda f: (f / "model.safetensors").unlink(), "the weights of .* cannot be read: .*model.safetensors"),
        (
            lambda f: change_config(f, model_type="zzz"),
            r"is a Qwen2Audio\S+ \(type zzz\), which is not",
        ),
        (lambda f: change_config(f, architectures=["NoSuchModel"]), "names no model class that transformers"),
        (lambda f: change_config(f, architectures=[]), "names no model class that transformers"),
        (break_json, "config.* (broken|cannot be read|not a valid JSON)"),
        (lambda f: (f / "processor_config.json").write_text("{"), "has no processor|JSON file .* is broken"),
        (drop_weight, r"weights of .* lack \S*layers.3.mlp.down_proj.weight; fetch all"),
    ],
    ids=["half", "empty", "no weights", "type", "class", "no class", "json", "processor json", "one weight missing"],
)
def test_a_broken_folder_is_one_sentence(folder: Path, harm: Callable[[Path], None], words: str) -> None:
    harm(folder)
    message = refusal(folder)
    assert re.search(words, message), message


def test_devices_and_dtypes_that_are_not_here_are_refused(tiny_folder: Path) -> None:
    for device in ("gpu", "mps", "cuda:99", "cpu:x"):
        assert f"device '{device}'" in refusal(tiny_folder, device=device)
    assert "dtype 'float64' is none of auto, float32, bfloat16, float16" in refusal(tiny_folder, dtype="float64")
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32
    assert pick_dtype("auto", torch.device("cuda")) == torch.bfloat16
    for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        assert open_model(str(tiny_folder), device="cpu", dtype=name).dtype == dtype


def test_the_key_changes_with_weights_dtype_and_attention_kernel(tiny_folder: Path, folder: Path) -> None:
    same, half = open_model(str(folder)), open_model(str(folder), dtype="bfloat16")
    first = open_model(str(tiny_folder))
    assert same.weights_hash == first.weights_hash and same.key == first.key  # content, not place
    same.hf.set_attn_implementation("eager")
    weights = load_file(folder / "model.safetensors")
    weights["language_model.lm_head.weight" if "language_model.lm_head.weight" in weights else "lm_head.weight"][0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    changed = open_model(str(folder))
    assert changed.weights_hash != first.weights_hash
    assert len({first.key, same.key, half.key, changed.key}) == 4
    inputs = first.model_inputs(tone(0.8, 350), PROMPT)
    with torch.inference_mode():
        assert gap(first.hf(**inputs).logits[0, -1], changed.hf(**inputs).logits[0, -1]) > 0.01


def test_weights_in_several_files_open_and_all_of_them_are_hashed(tiny_folder: Path, tmp_path: Path) -> None:
    whole = open_model(str(tiny_folder))
    shutil.copytree(tiny_folder, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    whole.hf.save_pretrained(tmp_path / "model", max_shard_size="200KB")
    assert len(list((tmp_path / "model").glob("model-*.safetensors"))) > 1
    sharded = open_model(str(tmp_path / "model"))
    inputs = whole.model_inputs(tone(0.8, 350), PROMPT)
    with torch.inference_mode():
        assert torch.equal(whole.hf(**inputs).logits, sharded.hf(**inputs).logits)
    last = sorted((tmp_path / "model").glob("model-*.safetensors"))[-1]
    weights = load_file(last)
    weights[next(iter(weights))] += 1
    save_file(weights, last, metadata={"format": "pt"})
    assert open_model(str(tmp_path / "model")).weights_hash != sharded.weights_hash


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_a_folder_without_permission_and_a_hub_id_without_network_are_refused(folder: Path) -> None:
    # Root may read everything, so this runs in a process that has become nobody, after it has imported what it
    # needs: the folders above are root's own. It enters the parent first, for the same reason.
    folder.parent.chmod(0o755)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    shutil.copytree(folder, folder.parent / "closed")
    shutil.copytree(folder, folder.parent / "sealed")
    (folder.parent / "closed").chmod(0)
    (folder.parent / "sealed" / "model.safetensors").chmod(0)
    code = (
        "import os, sys, json; from interp_core.models.load import open_model\n"
        "open_model(sys.argv[1] + '/model')  # imports what loading imports\n"
        "os.chdir(sys.argv[1])\n"
        "if os.geteuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "said = {}\n"
        "for name in ('closed', 'sealed', 'owner/no-such-model'):\n"
        "    try: open_model(name)\n"
        "    except Exception as error: said[name] = [type(error).__name__, str(error)]\n"
        "print(json.dumps(said))"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder.parent / "hub")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder.parent)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=environment,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("this root may not become another user")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert {name: kind for name, (kind, _) in said.items()} == dict.fromkeys(said, "InterpError") and len(said) == 3
    assert "closed may not be read (Permission denied); change its permissions" in said["closed"][1]
    assert said["sealed"][1] == "model.safetensors in sealed may not be read; change the permissions."
    assert "owner/no-such-model" in said["owner/no-such-model"][1]
    assert not any("\n" in message for _, message in said.values())


def test_save_qwen2_audio_is_seeded(tmp_path: Path, tiny_folder: Path) -> None:
    again = save_qwen2_audio(tmp_path / "again")
    other = save_qwen2_audio(tmp_path / "other", seed=1)
    digest = [(path / "model.safetensors").read_bytes() for path in (tiny_folder, again, other)]
    assert digest[0] == digest[1] != digest[2]


def test_a_model_opened_in_inference_mode_can_be_asked_for_gradients(tiny_folder: Path) -> None:
    with torch.inference_mode():
        subject = open_model(str(tiny_folder), device="cpu")
    assert not any(weight.is_inference() for weight in subject.hf.parameters())
