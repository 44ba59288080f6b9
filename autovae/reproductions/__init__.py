"""Experiments of the papers and benchmarks against peers, one file each."""
