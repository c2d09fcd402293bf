"""The alarms about the fence: their codes, and what each means and asks for."""

from ringfence.alarm_codes import AnyAlarmCode


class FenceAlarmCode(AnyAlarmCode):
    """The codes of the alarms about the fence, which admits only some networks to the SIP ports."""

    FENCE_WAITS = (
        "fence.waits",
        "The fence is configured to drop packets, but nobody has started it, so it only counts.",
        "Look at `ringfence fence status`, and run `ringfence fence enforce`.",
    )
    FENCE_TRIAL = (
        "fence.trial",
        "The fence drops packets as a trial, and only counts after its end.",
        "Run `ringfence fence confirm` to keep it.",
    )
    FENCE_INCOMPLETE = (
        "fence.incomplete",
        "The kernel may lack somebody whom the fence admits, so the fence only counts.",
        "Correct what the text names, such as `[firewall] max_bans`.",
    )

    FENCE_SSH = (
        "fence.ssh",
        "`also` of [fence] names a port at which SSH answers, so the fence leaves this port open.",
        "Remove the port from `also`, or set `also_ssh = true` in [fence].",
    )


CODES = FenceAlarmCode
