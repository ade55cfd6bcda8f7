"""The exception for mistakes of the user."""


class InputError(ValueError):
    """An input of the user is wrong; the message names the value, the place and the correction.

    Binaries print the message without a traceback and exit with status 1.
    """
