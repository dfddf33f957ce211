"""Stand-in surveys, written in the layouts of the real ones."""
