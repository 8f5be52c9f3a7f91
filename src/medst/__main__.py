"""`python -m medst` is `medst`."""

from medst.cli import main

main()
