"""Counterfactuals: the rows that were seen, in another world, on the same noise.

`abduction` completes what was not seen by one of the `rungs`; `worlds` keeps the noise of every
unit and runs the other world on it, `walks` for models with mechanisms; `couplings` bounds what no
data can tell; `scenarios` is the question, `answers` the answer. `conditioning` asks within one
world.
"""
