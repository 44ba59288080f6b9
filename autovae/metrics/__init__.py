"""How good a fit is, on scales that are comparable across beliefs."""
