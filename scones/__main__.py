"""``python -m scones``: the command line of the sources in the working directory, whichever are installed."""

from scones.cli import main

main()
