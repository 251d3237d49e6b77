"""A run on the machines of a Ray cluster: one worker a GPU, each with the model, computes shards, and one merges them.

`machines` joins or starts a cluster and says how many workers fit, `worker` is what runs on each, `run` deals the
shards and deals them again where a worker is lost. Ray itself is imported only when a cluster is asked for.
"""
