"""The commands, one file a subject. A command parses, calls and prints; heavy imports are inside the functions."""
