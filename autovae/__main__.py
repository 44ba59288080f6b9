"""`python -m autovae`."""

from autovae.cli import entry

entry()
