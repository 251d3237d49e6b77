"""A class mean as the donor on the patching page: asked for in the form, and said wherever the run is shown."""

from components import server as running
from components import state
from interp_core.experiments.patching.means import counts_said
from tests.pages.conftest import OpenApp, faults, words


def test_the_donor_is_a_choice_of_the_form_and_is_said_with_the_run_and_with_a_pair_by_hand(open_app: OpenApp) -> None:
    at = open_app(patch_kinds="semantic", patch_max_pairs="3", patch_controls="random", patch_flow="", patch_words="4",
                  patch_checks="false")  # fmt: skip
    assert "class means as donors" not in words(at).lower() and " with B at " in words(at)
    field = at.selectbox(key=state.setting("patch", "donor_state"))
    assert "mean" in field.options and any(one.startswith("mean:") for one in field.options)
    field.set_value("mean")
    at = next(button for button in at.button if button.label == "Run on all pairs").click().run()
    assert faults(at) == []
    (job,) = running.engine().jobs.jobs()
    assert job.wait(120) and job.status == "done", job.error
    at = at.run()
    assert faults(at) == []
    counts = job.result.config["donor_means"]
    said = words(at).replace("\\", "")
    assert counts_said(counts)[6:] in said and "B is the clip that says which pairs are reachable" in said
    assert "with the mean of the target at" in said and " with B at " not in said
    assert "**random donor**: the mean of another class" in said and "no clip's state" in said
    at = at.slider(key=state.ALPHA).set_value(0.3).run()  # by hand, with the mean of the same clips
    assert faults(at) == [] and "by hand: alpha 0.3" in words(at).replace("\\", "")
    at.session_state[state.WORDS] = True
    at = at.run()
    assert faults(at) == [] and "A with the mean of the target at" in words(at)
    at.session_state[state.WINDOW], at.session_state[state.ONLY_WINDOW] = "0.1-0.3", True
    at = at.run()
    assert faults(at) == [] and "take the mean of the target" in words(at)
    at.session_state["hand_fold"] = True
    at = at.run()
    said = words(at).replace("\\", "")
    assert "the donor is the mean of the target, so B has to be answered with a label of its own" in said
    assert at.selectbox(key=state.HAND_B).label == "B, who says the target" and "B's states" not in said
    assert all("mean" in one for one in faults(at))  # this model answers no clip with a label that others have


def test_a_label_that_no_pair_is_toward_is_said_in_one_sentence(open_app: OpenApp) -> None:
    at = open_app(patch_kinds="semantic", patch_donor_state="mean:bored")
    at = next(button for button in at.button if button.label == "Run on all pairs").click().run()
    jobs = running.engine().jobs.jobs()
    told = words(at) + "".join(str(job.error) for job in jobs if job.wait(60) or True)
    assert "mean:bored is none of the answers" in told
