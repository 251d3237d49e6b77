"""What the numbers of the experiment do not show, as a list in markdown: on its page and in its report."""

LIMITS = """
- A flip shows that the representation at this layer and these positions **has a causal effect** on the answer. It does
  not show that the information lives only there: other layers and positions may carry it too.
- A patched state can be one that the model never meets by itself. That is what the strength alpha and the matched-noise
  control are for: an effect that noise of the same norm has as well is damage, not information.
- Semantic pairs differ in words, and so in sound: the report of the pairs says by how much in duration, F0 and level.
- *Reachable* pairs are those whose answer is not yet the target and whose donor itself gets the target; the rate over
  all pairs is lower by what the model cannot do in the first place.
- A window of the time map that moves nothing alone may matter together with others; where masking it in A moves little,
  the map shows what a window can bring and not what A needs.
- The logit lens reads layers with the final readout, for which only the last of them was trained.
"""
