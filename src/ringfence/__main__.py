"""``python -m ringfence`` is ``ringfence``."""

from ringfence.cli.entry import main

main()
