"""``python -m ringfence`` is ``ringfence``."""

from ringfence.cli import main

main()
