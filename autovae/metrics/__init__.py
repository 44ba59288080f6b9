"""How good a fit is, on scales that are comparable across beliefs.

bits              the score of every trial: bits per dimension at L levels
common_head       the same score with one likelihood for all models
log_likelihood    tight estimates of log p(x) by importance sampling
psis              how far to trust importance weights: errors, ESS, Pareto k-hat
ais               log p(x) by annealed importance sampling
bdmc              log p(x) between a lower and an upper bound (bidirectional Monte Carlo)
curves            how a bound changes with K and alpha
active_units      how many latents carry information
fidelity          FID, KID, IS, precision and recall of generated points
frechet           the Frechet distance between two sets of features
"""
