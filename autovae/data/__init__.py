"""Data: names, files and arrays become checked tensors on the device.

datasets      what a data set is: `load` and `Data` with fixed splits, support, levels, digest
catalogue     which named data sets exist: files, checksums, licences, splits
downloads     where their files are, and how they are downloaded and verified
sources       how idx, npz, mat files, image folders and torch Datasets are read
supports      what values mean: binary, unit with L levels, real
batches       how stored values become network input, dequantised targets and bins; the order of minibatches
minibatches   how training and scoring read a split
errors        `DataError`, a message of one line
"""
