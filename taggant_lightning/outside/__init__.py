"""What strangers hand over: texts shown without effect on a reader's screen, JSON read within bounds, entries checked.

Knows nothing of keys, records or services, and raises ValueError: whoever reads a file says which one it is.
"""

from taggant_lightning.outside.text import cell, cleaned, encodable, say, shown

__all__ = ["cell", "cleaned", "encodable", "say", "shown"]
