"""Stratified samples: equal classes, the same clips whatever the order of the rows, and every short class is told."""

import time

import numpy as np
import pandas as pd
import pytest

from interp_core.data.sampling import stratified
from interp_core.errors import InterpError


def clips(**sizes: int) -> pd.DataFrame:
    ids = [(f"{label}{i:03}", label, i) for label, size in sizes.items() for i in range(size)]
    return pd.DataFrame(ids, columns=["clip_id", "label", "number"])


def refusal(*arguments: object, **settings: object) -> str:
    with pytest.raises(InterpError) as caught:
        stratified(*arguments, **settings)  # type: ignore[arg-type]
    return str(caught.value)


def test_every_class_gives_the_same_number_and_the_counts_are_reported() -> None:
    sample = stratified(clips(dog=50, cat=7, owl=9), "label", 5)
    assert sample.clips["label"].value_counts().to_dict() == {"cat": 5, "dog": 5, "owl": 5}
    assert sample.counts.to_dict("index") == {
        "cat": {"available": 7, "drawn": 5},
        "dog": {"available": 50, "drawn": 5},
        "owl": {"available": 9, "drawn": 5},
    }
    assert sample.clips["clip_id"].is_unique and sample.short == {} and sample.unlabelled == 0
    merged = sample.clips.merge(clips(dog=50, cat=7, owl=9))
    assert len(merged) == 15  # rows are whole: id, label and number still belong together


def test_the_order_of_the_rows_changes_nothing_and_another_seed_does() -> None:
    frame = clips(dog=50, cat=40)
    one = stratified(frame, "label", 10, 7).clips
    for seed in range(5):
        shuffled = frame.sample(frac=1, random_state=seed)
        pd.testing.assert_frame_equal(stratified(shuffled, "label", 10, 7).clips, one)
    assert set(stratified(frame, "label", 10, 8).clips["clip_id"]) != set(one["clip_id"])


def test_a_larger_sample_holds_the_smaller_and_its_first_rows_are_spread_over_the_classes() -> None:
    frame = clips(dog=50, cat=40, owl=30)
    small, large = (stratified(frame, "label", n).clips for n in (4, 20))
    assert small["clip_id"].tolist() == large["clip_id"].tolist()[:12]
    assert large["label"].tolist() == ["cat", "dog", "owl"] * 20


def test_other_classes_and_further_columns_leave_a_draw_alone() -> None:
    both = stratified(clips(dog=50, cat=40), "label", 10).clips
    alone = stratified(clips(dog=50), "label", 10).clips
    assert both["clip_id"][both["label"] == "dog"].tolist() == alone["clip_id"].tolist()


def test_every_clip_is_drawn_equally_often() -> None:
    frame = clips(dog=20)
    drawn = pd.concat([stratified(frame, "label", 5, seed).clips for seed in range(400)])["number"].value_counts()
    # Each clip is drawn 400 * 5 / 20 = 100 times on average; sd of a binomial count is 8.7.
    assert len(drawn) == 20 and drawn.min() > 100 - 5 * 8.7 and drawn.max() < 100 + 5 * 8.7


def test_short_and_missing_classes_are_all_named_or_taken_whole_and_reported() -> None:
    frame = clips(dog=50, cat=7, owl=2)
    assert refusal(frame, "label", 10) == (
        "10 clips of every label were asked for, but cat has 7, owl has 2; ask for 2 or fewer, or leave them out."
    )
    wanted = ["dog", "cat", "elk"]
    assert refusal(frame, "label", 5, classes=wanted) == (
        "5 clips of every label were asked for, but elk has 0; leave out those that have none."
    )
    sample = stratified(frame, "label", 10, classes=wanted, allow_short=True)
    assert sample.short == {"cat": 7, "elk": 0}
    assert sample.counts["drawn"].to_dict() == {"dog": 10, "cat": 7, "elk": 0}
    assert sample.clips["label"].value_counts().to_dict() == {"dog": 10, "cat": 7}


def test_without_a_number_the_smallest_class_sets_it() -> None:
    sample = stratified(clips(dog=50, cat=7), "label", None)
    assert sample.asked == 7 and sample.counts["drawn"].tolist() == [7, 7]
    said = refusal(clips(dog=50), "label", None, classes=["dog", "cat"], allow_short=True)
    assert said == "1 clips of every label were asked for, but cat has 0; leave out those that have none."


def test_classes_come_in_the_order_asked_for_and_others_stay_out() -> None:
    sample = stratified(clips(dog=5, cat=5, owl=5), "label", 2, classes=["owl", "dog"])
    assert sample.clips["label"].tolist() == ["owl", "dog"] * 2
    assert sample.counts.index.tolist() == ["owl", "dog"]


def test_rows_without_a_class_are_never_drawn_and_counted() -> None:
    frame = clips(dog=5, cat=5)
    frame.loc[[0, 5], "label"] = ["", None]
    sample = stratified(frame, "label", 4)
    assert sample.unlabelled == 2 and len(sample.clips) == 8
    assert not {"dog000", "cat000"} & set(sample.clips["clip_id"])


def test_an_odd_index_of_the_frame_does_no_harm() -> None:
    frame = clips(dog=6, cat=6)
    same = frame.set_axis([3] * 12)
    pd.testing.assert_frame_equal(stratified(same, "label", 3).clips, stratified(frame, "label", 3).clips)


@pytest.mark.parametrize(
    "column, per_class, said",
    [
        ("kind", 1, "the clips have no column 'kind'; they have clip_id, label, number."),
        ("label", 0, "per_class=0 draws nothing; give 1 or more, or None for the smallest class's size."),
    ],
)
def test_columns_and_numbers_that_make_no_sense_are_refused(column: str, per_class: int, said: str) -> None:
    assert refusal(clips(dog=3), column, per_class) == said


def test_clip_ids_must_be_there_once_and_a_class_at_least() -> None:
    frame = clips(dog=3)
    assert refusal(frame.assign(clip_id="x"), "label", 1).startswith("the clip_id 'x' is there more than once")
    assert "no column 'clip_id'" in refusal(frame.drop(columns="clip_id"), "label", 1)
    assert refusal(frame.assign(label=""), "label", 1).startswith("no clip has a value in 'label'")


def test_a_hundred_thousand_rows_are_quick() -> None:
    n = 100_000
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"clip_id": [f"c{i}" for i in range(n)], "label": rng.integers(50, size=n).astype(str)})
    begun = time.process_time()
    assert len(stratified(frame, "label", 40).clips) == 2000
    assert time.process_time() - begun < 5  # of processor time; about 0.4 s on a quiet machine
