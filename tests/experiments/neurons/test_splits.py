"""Splits: the filters' own clips, and one made here that divides neither versions nor the kept-out domain."""

from pathlib import Path

import pytest

from interp_core.data.clips import Clip
from interp_core.data.columns import DOMAINS, TASKS, column_of
from interp_core.errors import InterpError
from interp_core.experiments.neurons.splits import split


def clips_of(**columns):
    n = len(next(iter(columns.values())))
    rows = [{name: values[i] for name, values in columns.items() if values[i]} for i in range(n)]
    return [Clip(f"c{i}", Path("x"), row, str(i)) for i, row in enumerate(rows)]


def codecs(utterances=12, names=("a", "b", "c")):
    return clips_of(
        codec=[name for _ in range(utterances) for name in names],
        utterance=[f"u{u}" for u in range(utterances) for _ in names],
        speaker=[f"s{u % 3}" for u in range(utterances) for _ in names],
    )


def made(clips, **filters):
    return split(clips, "codec", "speaker", **{"train": "", "id": "", "ood": "", **filters})


def labels(clips, rows, column):
    return {clips[i].label(column) for i in rows}


def test_versions_of_one_utterance_stand_on_one_side_and_the_last_domain_is_kept_out():
    clips = codecs()
    found = made(clips)
    assert labels(clips, found.ood, "codec") == {"c"}
    assert labels(clips, found.train, "codec") == labels(clips, found.id, "codec") == {"a", "b"}
    trained = labels(clips, found.train, "utterance")
    assert not trained & labels(clips, found.id, "utterance") and not trained & labels(clips, found.ood, "utterance")
    assert len(trained) == 8 and "of no utterance that neurons are ranked on" in found.said


def test_where_every_utterance_of_the_domain_is_its_own_all_of_it_is_out_of_domain():
    clips = clips_of(codec=list("aabbbbcc"), text_id=[f"t{i}" for i in range(8)])
    found = made(clips)
    assert len(found.ood) == 2 and "ranked on" not in found.said


def test_two_domains_are_too_few_to_keep_one_out():
    with pytest.raises(InterpError, match="three are needed to keep one out of domain"):
        made(codecs(names=("a", "b")))


def test_filters_take_alternatives_of_a_column_and_all_columns_together():
    clips = codecs()
    found = made(clips, train="codec=a,codec=b,speaker=s0", id="codec=a,speaker=s1", ood="codec=c")
    assert labels(clips, found.train, "codec") == {"a", "b"} and labels(clips, found.train, "speaker") == {"s0"}
    assert len(found.train) == 8 and len(found.id) == 4 and len(found.ood) == 12


def test_usual_values_of_a_split_column_are_used_without_being_asked_for():
    clips = clips_of(split=["train", "val", "test", "other", "train"], codec=list("aabba"))
    found = made(clips)
    assert (found.train.tolist(), found.id.tolist(), found.ood.tolist()) == ([0, 4], [1], [2])


def test_a_column_is_found_where_it_has_two_values_and_named_where_it_has_not():
    clips = clips_of(label=["x", "x"], prosody_label=["a", "b"], speaker=["s", "t"])
    assert column_of(clips, "", TASKS, "task") == "prosody_label"
    assert column_of(clips, "label", TASKS, "task") == "label"
    assert column_of(clips, "", DOMAINS, "domain") == "speaker"
    with pytest.raises(InterpError, match="name one .--domain.: label, prosody_label"):
        column_of(clips_of(label=["x"], prosody_label=["a"]), "", DOMAINS, "domain")
