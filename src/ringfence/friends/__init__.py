"""The friends of this PBX, kept: gathered from what its Asterisks say, remembered, handed over to a twin.

Who is a friend, and what that means, is the matter of ``detect.friends``. Here it is learned, written into
the store, told to commands, and asked whether enough is known to ban.
"""
