"""Spaces, studies, and the run of a study; Optuna lives here."""
