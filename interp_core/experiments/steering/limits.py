"""What the numbers of the experiment do not show, as a list in markdown: on its page and in its report."""

LIMITS = """
- An answer that moves shows that the direction is **sufficient** to move it. It does not show that the model uses this
  direction by itself, nor that the label is represented there alone: for that, take it away (Neurons, Patching).
- Far from where it was fitted, a state is one that the model never meets: a large strength breaks things as well as
  moving them. Hence the random vectors of the same length, the probability that stays on the answers, and the accuracy
  under the other questions.
- The difference of means holds **all** that differs between the label's clips and the others: length, loudness and
  speaker too, where these go with the label. Clips of the fitted half are never steered.
- Behind the last layer of an encoder the head reads the steered positions themselves: there a vector moves the answer
  as it would in any linear classifier, whatever the model made of the sound.
- An answer in words hangs on its first tokens: two texts can part over a near tie, and one that stays says nothing of
  the probabilities behind it.
- Difference of means as a direction: Rimsky et al. 2024 (arXiv:2312.06681), Marks & Tegmark 2023 (arXiv:2310.06824).
  Sufficient is not used: Makelov et al. 2023 (arXiv:2311.17030). Controls as in yurpl/omni-steer.
"""
