"""Lets ``python -m ringfence`` run the command ``ringfence``."""

from ringfence.cli.entry import main

main()
