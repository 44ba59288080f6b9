"""The commands. A command parses, calls and prints; heavy imports are inside the functions.

studies     run, report, restore, compare, export
cluster     worker, dashboard, and the processes of `run --workers`
priors      sample, score, fidelity, reason
tables      beliefs, datasets, bench
options     options and output that commands share
"""
