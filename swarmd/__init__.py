"""swarmd: one machine out of several."""

__version__ = "0.1.0"
