"""Data: from names, files and arrays to checked tensors on the device.

datasets    `load` and `Data`: fixed splits, support, levels, digest
batches     network input, dequantised targets, bins, minibatch order
catalogue   the table of named sets
supports    what values mean: binary, unit with L levels, real
sources     readers of idx, npz, mat, image folders, torch Datasets
files       where files lie, checksums, downloads
errors      `DataError`, one line
"""
