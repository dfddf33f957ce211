"""Strong-lens finding with Keras: five papers re-run, and the tool they lead to."""

__version__ = "0.1.0"
