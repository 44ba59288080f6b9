"""The population trainer; imports neither optuna nor pydantic nor typer."""
