"""The parts of the report's page, one file a question; each is a function from `Content` to HTML."""
