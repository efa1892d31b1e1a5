"""The version of this distribution; hatchling reads it from here."""

__version__ = "2.0.0"
