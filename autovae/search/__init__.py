"""Spaces, studies, and the run of a study; the only package that uses Optuna.

space          which beliefs a trial may choose: a TOML file of parameters
parameters     the kinds of parameters in a space
study          a study file: data, space, budget, sampler, finals
files          where study and space files are found, and how they are validated
requirements   what a study needs of its data and of installed packages
plan           what a run would do, without running it
run            run or resume a study
trials         which trials exist: asked, trained, told
samplers       which belief is tried next
evaluate       how a batch of trials is trained and scored
pruners        which trials stop early
stopping       when a search ends early
extras         objectives besides bits per dimension
finals         finalists and baselines trained again over several seeds
verdict        whether the winner beats the matched normal, and by how much
curves         bounds of winner and baseline against K and alpha
result         the results folder and its tables
save           the files of the finals
export         the winner, or any trial, as a prior module
events         progress, and events for trackers
schema         a JSON schema of space files, for editors
workers/       several workers on one study: driver, storage, claims, heartbeats, locks, journal
"""
