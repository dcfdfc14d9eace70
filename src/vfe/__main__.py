"""`python -m vfe`: the command line, where the `vfe` command is not on the path."""

from vfe.cli import main

main()
