"""Values on disk: save, load, fingerprint."""

from .files import fingerprint, load, save

__all__ = ["fingerprint", "load", "save"]
