"""The command line: ``ringfence COMMAND``, one file for each group of commands."""
