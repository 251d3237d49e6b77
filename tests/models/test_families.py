"""The list of families: every type that opens is in it once, and a folder's files say which entry it is."""

import json

import pytest

from interp_core.errors import InterpError
from interp_core.models.arch import ARCHS, ENCODERS
from interp_core.models.families import GROUPS, families, family_of, lacking, of_records
from interp_core.models.found import family_at, find_models
from interp_core.models.lacking import LACKING
from interp_core.models.load import OPENERS
from interp_core.models.verified import Verified, verified
from tests.families.subjects import CASES, Opened

KNOWN = families()
BY_NAME = {family.name: family for family in KNOWN}


def test_every_type_that_the_loader_opens_has_an_entry_and_no_two_entries_share_a_name():
    assert len(BY_NAME) == len(KNOWN) and {family.group for family in KNOWN} == set(GROUPS)
    assert {name for family in KNOWN for name in family.types} == set(OPENERS)
    assert set(ARCHS) | set(ENCODERS) <= set(OPENERS) and not set(LACKING) & set(OPENERS)
    assert sorted(name for names in lacking().values() for name in names) == sorted(LACKING)


def test_an_entry_has_the_sites_and_the_class_of_what_opens_by_it(one: Opened) -> None:
    at = family_at(one.path if one.path.is_dir() else one.path.parent, KNOWN)
    types = {"msclap": ("clap",), "resnet": ()}.get(one.case.name, None)
    entries = [family for family in KNOWN if at is not None and family.types == at.types]
    if types is not None:  # weight files: told by what is in them, when they are opened
        assert at is None
        entries = [BY_NAME[one.case.name.removeprefix("ms")]]
    if one.case.family == "spoof":
        entries = [BY_NAME["countermeasure"]]
    if one.case.family == "aasist":
        entries = [BY_NAME["AASIST"]]
    if one.case.family == "detector":
        names = {"detector-ssl-aasist": "SSL-AASIST", "detector-sls": "SLS"}
        names |= {"detector-wavlm-sls": "SLS over WavLM", "detector-ca-mhfa-wavlm": "CA-MHFA"}
        names |= dict.fromkeys(("detector-mhfa-wavlm", "detector-mhfa-wav2vec2"), "MHFA")
        name = names.get(one.case.name, "AntiDeepfake")
        entries = [BY_NAME[name]]
    kind, inside, part = type(one.subject), set(one.subject.kinds), one.case.part
    fits = [family for family in entries if issubclass(kind, family.subject) and set(family.inside) == inside]
    if part:
        fits = [family for family in fits if family.part == (part if part != "encoder" else "")]
    assert fits, (one.case.name, kind, [family.subject for family in entries])
    if one.case.reads != "probe":  # what is fitted is no site of the type
        assert set(one.subject.stages) <= {stage for family in fits for stage in family.behind}


def test_a_record_belongs_to_the_entry_with_its_type_and_sites():
    def record(name):
        return Verified("m", "whisper", "float32", "cpu", "now", BY_NAME[name].inside)

    records = [record("whisper (decoder)"), record("whisper (encoder)"), Verified("n", "unheard_of", "", "", "")]
    assert of_records(BY_NAME["whisper (decoder)"], records, KNOWN) == records[:1]
    assert of_records(BY_NAME["whisper (encoder)"], records, KNOWN) == records[1:2]
    assert [r for family in KNOWN for r in of_records(family, records, KNOWN)].count(records[2]) == 0


def test_what_an_entry_and_the_papers_say_was_checked_on_published_weights_has_a_record():
    said = {family.name for family in KNOWN if "published weights" in family.checked}
    sent = list(verified())
    assert said == {"AASIST"} and {len(of_records(BY_NAME[name], sent, KNOWN)) for name in said} == {2}


def test_models_are_found_below_a_folder_and_nothing_else_is(tmp_path):
    def folder(name, **config):
        made = tmp_path / name
        made.mkdir(parents=True)
        (made / "config.json").write_text(json.dumps(config))
        return made

    for name in ("a/wavlm", "b/c/whisper", ".hidden/wavlm", "d/bert"):
        (folder(name, model_type=name.rpartition("/")[2]) / "model.safetensors").touch()
    (folder("a/wavlm/again", model_type="wavlm") / "model.safetensors").touch()  # inside a model
    folder("no-weights", model_type="wavlm")
    (folder("a-list") / "model.safetensors").touch()
    (tmp_path / "a-list" / "config.json").write_text("[]")
    (folder("broken") / "model.safetensors").touch()
    (tmp_path / "broken" / "config.json").write_text("{")
    (folder("opens2s", architectures=["OmniSpeechModel"]) / "model-1.safetensors").touch()
    (folder("a/whole-ultravox", model_type="ultravox") / "model.safetensors").touch()
    (folder("a/whole-ultravox/whisper-tiny", model_type="whisper") / "model.safetensors").touch()  # a part of it
    for name, about in (("kimi", {}), ("a/kimi", {"model_type": "moonshot_kimia"})):  # what published copies say
        (folder(name, architectures=["MoonshotKimiaForCausalLM"], **about) / "model-1-of-35.safetensors").touch()
        (folder(f"{name}/whisper-large-v3", model_type="whisper") / "model.safetensors").touch()
    tokenizer = folder("glm-4-voice-tokenizer", model_type="whisper", architectures=["WhisperVQEncoder"])
    (tokenizer / "model.safetensors").touch()  # a part of others, which answers nothing
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "best.pt").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a" / "wavlm", target_is_directory=True)
    found = {str(one.path.relative_to(tmp_path)): one.family.name for one in find_models(tmp_path, 100)}
    assert found == {
        "a/wavlm": "wavlm",
        "a/kimi": "kimi_audio",
        "a/whole-ultravox": "ultravox",
        "b/c/whisper": "whisper (encoder)",
        "kimi": "kimi_audio",
        "opens2s": "omnispeech",
        "run": "countermeasure",
    }
    with pytest.raises(InterpError, match="holds more than 3 folders"):
        list(find_models(tmp_path, 3))


def test_the_bundled_models_are_told_by_their_files():
    from interp_core.models.bundled import demos

    types = {demo.name: family_at(demo.model_dir, KNOWN).name for demo in demos().values()}
    assert types["demo-emotion"] == "qwen2_audio" and types["demo-emotion-wavlm"] == "wavlm"
    assert types["demo-spoof-erm"] == types["demo-spoof-dann"] == "countermeasure" and types["demo-events"] == "clap"
    assert family_of("no_such_type", KNOWN) is None and len(CASES) > 30
