"""Densities only: families, divergences, pairings, likelihoods, learned priors. Tensors in, tensors out."""
