"""The parts of a study's page: one file per part, a function from `Content` to the values of templates/parts/<name>.html.j2.

result        the verdict, key numbers, gain over the matched normal
mattered      importances of the belief axes, and the map of pairs
drawings      samples, reconstructions, interpolations
latents       information, traversals and divergence landscapes of the latents
bounds        tightness against K and alpha
fidelity      FID, KID, IS, precision and recall of the saved models
leaderboard   finals, trials, beliefs, failures
search        score history, learning curves, Pareto front, the search space
computed      objective, score, and their limits
again         command, versions, seeds, data
"""
