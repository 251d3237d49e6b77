"""What the numbers of the experiment do not show, as a list in markdown: on its page and in its report."""

LIMITS = """
- *Selective* at a fixed K means: without these neurons the domain probe loses more than random neurons take from it,
  accuracy out of domain does not fall and beats random neurons of like weight, and the task probe stays.
- Frozen probes were fitted on unedited features. A refitted probe shows what is still there to be learned: a high one
  beside a low frozen one says that the domain is spread over more neurons than were taken.
- *Mean* ablation leaves a neuron's average in place; *zero* also shifts what follows; a *sign flip* destroys nothing
  that a refitted probe could not turn back.
- The domain probe is measured in domain, where several domains are; out of domain there may be only one.
- An answer in words hangs on its first tokens: two texts can part over a near tie, and one that stays says nothing of
  the probabilities behind it.
- An interval counts the units that were really sampled; under ten of them there is none, and no run is selective.
"""

ERASURE_LIMITS = """
- LEACE leaves nothing of the concept that a **linear** classifier could read from the clips that it was fitted on. What
  is behind the site is not linear: it may still find the concept, and other clips may keep a little, which the refitted
  probe shows.
- Erased is in what the **training** domains differ. A domain that was not among them may be apart in another direction,
  which stays: then nothing is gained out of domain.
- What goes along with the concept in the training clips goes too: where the domain goes with the task there, erasing
  the domain erases **some of the task**. The task erased, and accuracy in domain, stand beside it for that.
- Labels of **training clips** decide the directions. The label of the clip that is answered is not used.
- A random subspace of the same rank holds a far smaller share of what varies, so it is a low bar.
- Source: LEACE, Belrose et al. 2023, arXiv:2306.03819; covariance shrunk after Ledoit & Wolf 2004. What erasing shows
  of use, and what not: Elazar et al. 2021 (amnesic probing), arXiv:2006.00995.
"""
