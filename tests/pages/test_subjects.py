"""The dashboard over models that are no audio LLM: what the sidebar offers, what it says, what is run."""

from pathlib import Path

import pytest

from interp_core.models.load import open_model
from tests.corpus import write_corpus
from tests.families.adapters import write_adapter
from tests.families.encoders import save_wavlm, save_whisper
from tests.pages.conftest import OpenApp, faults, words
from tests.tiny import LABELS


@pytest.fixture
def clips(server: Path) -> str:
    return str(write_corpus(server / "corpus", texts=2))


def opened(open_app: OpenApp, model: Path, clips: str, **parameters: str):
    at = open_app(model=str(model), clips=clips, patch_kinds="prosody", **parameters)
    assert "Open it only if you trust it" in words(at)
    return next(button for button in at.button if button.label == "Open this model").click().run()


def labelled(at, kind: str, label: str):
    return next((widget for widget in at.get(kind) if widget.label == label), None)


def test_a_classifier_is_asked_nothing_and_offers_its_own_classes_and_sites(
    open_app: OpenApp, server: Path, clips: str
) -> None:
    at = opened(open_app, save_wavlm(server / "model", n_layers=2, labels=LABELS), clips)
    assert not faults(at)
    assert labelled(at, "text_area", "Questions, one a line") is None and "is asked nothing" in words(at)
    assert labelled(at, "text_input", "Answers").value == ", ".join(LABELS)
    site = labelled(at, "selectbox", "Site")
    assert site.value == "attn_out" and "cross_out" not in site.options
    assert labelled(at, "selectbox", "Positions").options == ["audio", "all"]
    assert labelled(at, "multiselect", "Information flow").options == ["lens"]
    assert labelled(at, "text_input", "Probe") is None


def test_a_bare_checkpoint_asks_for_a_probe_and_then_runs(open_app: OpenApp, server: Path, clips: str) -> None:
    at = opened(open_app, save_wavlm(server / "model", n_layers=2, bare=True), clips)
    assert not faults(at) and "has no classifier, so it answers nothing by itself" in words(at)
    at = labelled(at, "text_input", "Probe").set_value("prosody_label").run()
    assert not faults(at) and "Nothing has been computed for these settings yet" in words(at)
    at = labelled(at, "text_input", "Probe").set_value("mood").run()
    assert "a probe of 'mood' needs two classes or more" in words(at)


def test_whisper_offers_its_two_lists_of_blocks(open_app: OpenApp, server: Path, clips: str) -> None:
    at = opened(open_app, save_whisper(server / "model"), clips, part="decoder")
    assert not faults(at)
    assert "cross_out" in labelled(at, "selectbox", "Site").options
    assert labelled(at, "selectbox", "Positions").options == ["audio", "last", "all"]
    assert "<|startoftranscript|>" in labelled(at, "text_area", "Questions, one a line").value


def test_a_folder_that_is_no_model_is_one_sentence(open_app: OpenApp, server: Path, clips: str) -> None:
    at = opened(open_app, server / "nowhere", clips)
    assert len(faults(at)) == 1 and "no folder or file on this machine" in words(at)


def test_an_adapter_in_a_link_is_opened_when_the_visitor_agrees_and_its_path_is_one_of_the_servers(
    open_app: OpenApp, server: Path, clips: str
) -> None:
    model = save_wavlm(server / "model", n_layers=2, labels=LABELS)
    write_adapter(server / "lora", open_model(str(model), device="cpu").hf, ["intermediate_dense"])
    at = opened(open_app, model, clips, adapter=str(server / "lora"))
    assert "This link names an adapter that does not ship" in words(at)
    at = next(button for button in at.button if button.label == "Open this adapter").click().run()
    assert not faults(at) and "Nothing has been computed for these settings yet" in words(at)
    assert "model with lora" in words(at), "what is open says what was merged"
    at = labelled(at, "text_input", "Adapter").set_value("").run()
    assert not faults(at)
    at = labelled(at, "text_input", "Adapter").set_value("/etc").run()
    assert len(faults(at)) == 1 and "outside" in words(at)
    at = labelled(at, "selectbox", "Model").set_value("demo-tiny").run()
    assert not faults(at) and labelled(at, "text_input", "Adapter").value == ""


def test_another_model_forgets_what_was_chosen_for_the_one_before(open_app: OpenApp, server: Path, clips: str) -> None:
    at = opened(open_app, save_wavlm(server / "model", n_layers=2, labels=LABELS), clips, patch_labels="sad,happy")
    assert labelled(at, "text_input", "Answers").value == "sad,happy"
    at = labelled(at, "selectbox", "Model").set_value("demo-tiny").run()
    assert not faults(at)
    assert labelled(at, "text_input", "Answers").value == ", ".join(LABELS)
    assert labelled(at, "text_input", "Manifest").value == ""
