"""What words and paths tell of a network."""

from ._memorisation import Memorisation, memorisation

__all__ = ["Memorisation", "memorisation"]
