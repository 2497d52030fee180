"""``python -m jaxvid.cli``."""

import sys

from jaxvid.cli import main

if __name__ == "__main__":
    sys.exit(main())
