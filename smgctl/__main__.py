"""Starts the command line: `smgctl`, or `python -m smgctl`."""

import sys

from smgctl.app import run


def main() -> None:
    """Run `smgctl` with the arguments of this process and exit with its code."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
