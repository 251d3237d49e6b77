"""What the numbers of the experiment do not show, as a list in markdown: on its page and in its report."""

LIMITS = """
- **A probe that reads is not a model that uses.** That a label can be read off a layer does not say that anything
  behind the layer reads it: for that, change it (Patching, Steering, Neurons). Belinkov 2022 (arXiv:2102.12452).
- A probe learns a task of its own. The control task (random labels, one a unit: Hewitt & Liang 2019, arXiv:1909.03368)
  says how much it could have learned by heart: look at the selectivity beside the accuracy.
- A linear probe misses what is there in another form; the mean over positions misses what only their order holds.
- What goes with the label in these clips (length, loudness, speaker) is read with it. Units that are held out guard
  against clips that are related, as far as the manifest says which they are.
- The lens reads a layer with the final norm and the unembedding, which were trained for the last layer alone: it is
  biased, and a layer that it cannot read may hold the answer. Belrose et al. 2023 (arXiv:2303.08112).
- The transcript by layer stops an encoder (Whisper's, Moonshine's, SeamlessM4T's) where it was never meant to stop:
  what the decoder writes there is of states that it never met. Langedijk et al. 2023 (arXiv:2310.03686).
"""
