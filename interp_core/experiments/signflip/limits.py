"""What the numbers of the experiment do not show, as a list in markdown: on its page and in its report."""

LIMITS = """
- A norm ignores signs: right at the layer whose neurons are flipped, energy and its modulation **cannot** change, and
  flipping whole dimensions leaves refitted zero crossings alone. Such zeros are marked ≡; they are no finding. What
  can be one stands behind the edited layer, where blocks have mixed the flipped neurons with the rest.
- The measures are taken of a representation, not of a sound. *Are they acoustic?* shows how far each follows what it
  is named after, layer by layer, over unedited clips.
- Random neurons are matched on their mean activation: a change that they make as well is one of size, not of meaning.
- Neurons are attributed on one half of the clips and measured on the other; texts or speakers are never divided.
- A flipped state can be one that the model never meets by itself.
"""
