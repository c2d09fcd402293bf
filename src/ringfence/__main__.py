"""``python -m ringfence`` is ``ringfence``."""

from ringfence.entry import main

main()
