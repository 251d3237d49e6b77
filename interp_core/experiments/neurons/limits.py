"""What the numbers of the experiment do not show, as a list in markdown: on its page and in its report."""

LIMITS = """
- *Selective* at a fixed K means: without these neurons the domain probe loses more than random neurons take from it,
  accuracy out of domain does not fall and beats random neurons of like weight, and the task probe stays.
- Frozen probes were fitted on unedited features. A refitted probe shows what is still there to be learned: a high one
  beside a low frozen one says that the domain is spread over more neurons than were taken.
- *Mean* ablation leaves a neuron's average in place; *zero* also shifts what follows; a *sign flip* destroys nothing
  that a refitted probe could not turn back.
- The domain probe is measured in domain, where several domains are; out of domain there may be only one.
- An interval counts the units that were really sampled; under ten of them there is none, and no run is selective.
"""
