"""What the numbers of the experiment do not show, as a list in markdown: on its page and in its report."""

LIMITS = """
- CKA says how alike two sets of activations are, up to rotation and scale. The **least alike layer is not the cause**
  of a different answer: differences from one early block run through all later ones. The rank correlation of the
  run says how far the two agree here.
- A transplant shows that what stands at a site **has a causal effect** on the score. It does not show that a model
  trained another way would behave like it.
- Transplants of the donor's activations need the donor at inference: two forward passes a clip. Only the donor-free
  maps and the layer weights do not.
- A concept that is **erased** is gone for a linear reader, at that site, as it was learned on the choosing half: what
  follows may find it another way, and what goes along with it (some of the class, where codecs and classes go together)
  is erased with it. Its control is one random subspace of the same rank, a low bar (LEACE: arXiv:2306.03819).
- A probe at chance does not prove that a codec cannot be read, only that a linear probe of these clips does not read
  it.
- Sites and modes were chosen on one half of the speakers and all rates are of the other half, where there are speakers
  enough for halves; the notes of the run say so where there are not.
"""
