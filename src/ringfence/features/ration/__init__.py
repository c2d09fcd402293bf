"""The rations: the kernel limits what Asterisk refuses one stranger, and what one stranger may ask.

``settings`` has their rules, which follow the rule ``guess``.
"""
