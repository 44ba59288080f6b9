"""Benchmarks against peers, one file each: `autovae bench NAME` prints ratios measured in interleaved rounds."""
