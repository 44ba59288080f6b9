"""Figures: data in, matplotlib Figure out; nothing is read or written.

    gain         gains over a baseline, per seed and with intervals
    importance   importances with intervals, the score along one axis
    pairs        maps of posterior x prior and of the strongest interaction
    search       scores in order, learning curves, Pareto front
    bounds       bounds against K and alpha
    latents      information of the latents, shares of pairs

Scores are bits per dimension, lower is better; gains are bits saved, higher is better. `first` is the colour of the winner
or the subject, `second` that of the baseline it is compared with.
"""
