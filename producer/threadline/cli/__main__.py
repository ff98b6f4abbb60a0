"""`python -m threadline.cli` is the `threadline` program."""

from threadline.cli import main

main()
