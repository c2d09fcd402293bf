"""The list of the kernel for the networks that the fence admits."""

from ringfence.firewall.network_lists import NetworkList

LIST = NetworkList("inside", "the networks and regions of the fence")
