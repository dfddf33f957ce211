"""`python -m cast_lens` is `cast-lens`."""

from cast_lens.cli import main

if __name__ == "__main__":
    main()
