"""One loop for any number of workers: the driver, the storage of its trials, heartbeats, locks and the journal file."""
