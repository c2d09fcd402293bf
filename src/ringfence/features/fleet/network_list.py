"""The list of the kernel for the networks that other hosts ban."""

from ringfence.firewall.network_lists import NetworkList
from ringfence.values.ban import Scope

LIST = NetworkList("decided", "networks that other hosts banned", Scope.SIP, by_machine=True)
