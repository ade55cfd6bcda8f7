"""The one exception for mistakes of the user."""


class InputError(ValueError):
    """What the user gave is wrong; the message names the value, the place and the mend.

    Binaries print its message without a traceback and leave with status 1.
    """
