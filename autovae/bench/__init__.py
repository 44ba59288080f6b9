"""Benchmarks against peers: `autovae bench NAME` prints ratios measured in interleaved rounds.

table           the benchmarks by name
rounds          clocks, medians of ratios, tables
training        seconds per epoch against pythae and plain loops
contenders      the ways of training that `training` compares
rate            trials per hour of one device
overhead        a study's time besides training
conv            convolutional members, stacked or one at a time
nll             log likelihood against pythae
divergences     a training step of mixed families against all-normal
importance      fANOVA against Optuna's
hmc             HMC against Pyro and blackjax
accuracy        errors of the divergence table (`python -m autovae.bench.accuracy`)
oracle          divergences in 25 digits, its ground truth
"""
