"""neuro-local: a stand-in for the Neuro platform on one machine."""

__version__ = "0.1.0"
