"""What a study found: importance, figures, one page."""
