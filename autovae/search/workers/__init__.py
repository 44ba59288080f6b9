"""One loop for any number of workers.

driver       what a worker does: ask, train, tell, conclude
storage      where trials are stored: journal file, SQLite, PostgreSQL, gRPC
claims       which worker trains which trial, and what happens to the trials of a dead worker
heartbeat    whether a worker is alive
locks        mutual exclusion between processes and hosts
journal      the journal file, robust to kills and full disks
sharing      agreement of workers on a study, and the copy of its trials in the results folder
"""
