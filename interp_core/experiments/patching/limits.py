"""What the numbers of the experiment do not show, as a list in markdown: on its page and in its report."""

LIMITS = """
- A flip shows that the representation at this layer and these positions **has a causal effect** on the answer. It does
  not show that the information lives only there: other layers and positions may carry it too (how to read a patch:
  Heimersheim & Nanda 2024, arXiv:2404.15255).
- A patched state can be one that the model never meets by itself. That is what the strength alpha and the matched-noise
  control are for: an effect that noise of the same norm has as well is damage, not information.
- A **class mean** as the donor (`--donor mean`) is no clip's state: it has no course in time and less spread than any
  recording, so it may lie off what the model ever meets, and fewer flips than with B need not mean that the class is
  not there. What goes along with a label in the clips (a speaker, a level, a text) goes along in its mean (class means
  as directions: Marks & Tegmark 2023, arXiv:2310.06824; how far off a mean lies: Li & Janson 2024, arXiv:2409.09951).
- Semantic pairs differ in words, and so in sound: the report of the pairs says by how much in duration, F0 and level.
- *Reachable* pairs are those whose answer is not yet the target and whose donor itself gets the target; the rate over
  all pairs is lower by what the model cannot do in the first place.
- A window of the time map that moves nothing alone may matter together with others; where masking it in A moves little,
  the map shows what a window can bring and not what A needs (what a window patched alone shows and what several
  together: Zhang & Nanda 2023, arXiv:2309.16042; maps of position and layer: Meng et al. 2022, arXiv:2202.05262).
- A donor that was made by **editing the sound** carries traces of the tool as well: a phase vocoder smears onsets and
  moves formants (Laroche & Dolson 1999). What moved beside the aim is measured; the model may hear that instead.
- The logit lens (nostalgebraist 2020) reads layers with the final readout, for which only the last of them was trained:
  it is biased, and a layer that it cannot read may hold the answer (Belrose et al. 2023, arXiv:2303.08112).
"""

HEAD_LIMITS = """
- An **estimate** is a slope: (B's state - A's state) times the gradient at A. It is exact where the answer is linear in
  the head, and can be wrong in size or sign where attention or the answer is saturated (attribution patching: Nanda
  2023; where it fails: AtP*, arXiv:2403.00745). A head that nothing verified is a hint and no finding.
- A **true patch** of one head leaves all others A's: a head whose work another one also does shows little, and heads
  that act together show it only together.
- The heads were chosen by their estimates on the same pairs. The adjusted p takes that in: it goes over the estimates
  of all heads as well, and compares B with a random donor.
- The **wrong-sign share** counts pairs in which the estimate points the other way than the true patch: where it is
  high, do not read the colours of heads that were not verified.
- **Attention** says where a head looks, and not that what it finds there is used.
- At the residual stream there is no such map: there estimates of single positions followed true patches at r = 0.17 to
  0.31 only, on demo-emotion.
"""

BACK_LIMITS = """
- A later layer's state is one that an earlier layer **never meets**: the answer can be damaged for that alone, and a
  gain is easier to read than a loss. There is no noise beside it here; the control is the diagonal, which is exactly
  null.
- A gain says that layers in front of the source **could use** what the source holds; not that the model is short of
  layers by itself, and not which of the many differences between the two states it was.
- The best cell was chosen among many by looking at them, so its gain is too good by selection, and no cell is tested.
  Where Biran et al. 2024 (arXiv:2406.12775) repair up to 66 % of wrong answers, they count answers that *some* cell
  repairs, the best one of each question. *Restored* here is the share that one and the same cell repairs.
- The source ran on what the target's layer had left; nothing is iterated, and positions of the question keep their
  own states of that layer. In audio language models the method is that of arXiv:2606.18924.
- Accuracy is against the label column. Where a question asks for the voice, a gain for the words is no repair.
"""

STATED_LIMITS = """
- An answer that **matches** a source need not come from it: text and words, or words and voice, can say the same.
  Only where all three differ does an answer tell them apart; *text against voice* counts what the words say too for
  the text.
- The **text dominance ratio** is the share of the text among answers that follow text or voice. ALME
  (arXiv:2602.11488) takes the share of all conflict trials; that is the share of the text here. Answers that follow
  neither stand beside it.
- One wording is one wording: a statement that is ignored may be followed when it is put otherwise (`--statement`). A
  statement also makes the prompt another one, and a small model may answer it differently whatever it states: compare
  the shares of voice and words without it.
- **By layer**, states of the run with the statement go to the text that both prompts share. They show where the
  statement has arrived at those positions; the statement's own words have no counterpart and are not patched.
- What follows the text may be obedience to the prompt or belief in it; the shares cannot tell (who wins such
  conflicts in audio language models, and where: arXiv:2606.18924).
"""

SUBSPACE_LIMITS = """
- That these directions are **enough** for an effect does not mean that the model uses no others: what is left out may
  carry the same once more, and a subspace that moves nothing alone may matter together with the rest.
- It is fitted on **mean** states, over clips and over the replaced positions: what differs between classes in another
  way than in the mean (their spread, their order in time) is in no such direction.
- A random subspace of the same rank exchanges a far **smaller share** of the difference between A and B (both shares
  are given), and may write into directions in which no clip differs. An effect beyond it says that these directions
  matter more than any, and not that they matter more than their share.
- The classes are those of the labels. Whatever goes along with a label in the clips (a speaker, a level, a text) goes
  along in the subspace.
- Sources: interchange of a subspace: Geiger et al. 2023, arXiv:2303.02536; why such an effect can be an illusion where
  the subspace meets directions that are dormant: Makelov et al. 2023, arXiv:2311.17030. Difference of class means as a
  direction: Marks & Tegmark 2023, arXiv:2310.06824.
"""
