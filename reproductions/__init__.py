"""One module per paper; each is that paper's Methods section as a program."""
