"""`python -m taggant_lightning` is the same program as `taggant`."""

import sys

from taggant_lightning.cli import main

if __name__ == "__main__":
    sys.exit(main())
