"""`python -m attnpool` is the command line."""

import sys

from attnpool.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
