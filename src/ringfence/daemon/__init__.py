"""The daemon: builds every part, supervises it, and answers the commands."""
