"""Densities only: families, divergences, pairings, likelihoods, rival priors. Tensors in, tensors out."""
