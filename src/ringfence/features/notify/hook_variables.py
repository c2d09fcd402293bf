"""The environment variables that a command of ``[[notify.hook]]`` gets.

Unlike other variables whose names begin with ``RINGFENCE_``, they override no key of the configuration.
"""

HOOK_VARIABLES = (
    "RINGFENCE_EVENT",
    "RINGFENCE_SEVERITY",
    "RINGFENCE_HOST",
    "RINGFENCE_TITLE",
    "RINGFENCE_TOTAL",
    "RINGFENCE_NAME",
    "RINGFENCE_SUBJECT",
    "RINGFENCE_TEXT",
    "RINGFENCE_SECONDS",
)
