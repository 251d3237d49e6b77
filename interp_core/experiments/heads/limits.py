"""What the numbers of the experiment do not show, as a list in markdown: on its page and in its report."""

LIMITS = """
- A head that separates the classes **need not be used** by the model: that is what the ablation is for. A head whose
  mean over time separates nothing may still be used, through what happens at single positions.
- The ratio looks at each dimension alone: classes that differ in how dimensions go together are missed, and the probe
  beside it sees them. What a probe can read, the model need not use (Belinkov 2022, arXiv:2102.12452).
- Classes differ in loudness, length and recording too. Heads may separate recordings, not sounds; related clips are
  kept together, as far as the manifest says which they are.
- Taking one head away can be made up for by others (most can go with little loss: Michel et al. 2019,
  arXiv:1905.10650; how others repair it: McGrath et al. 2023, arXiv:2307.15771); taking it to zero or to a mean
  can be stranger to the model than any sound (Li & Janson 2024, arXiv:2409.09951).
- An answer in words hangs on its first tokens: two texts can part over a near tie, and one that stays says nothing of
  the probabilities behind it. The heads that are taken out for it are chosen by what separates the classes of the same
  clips, not by what they do to the answer.
"""
