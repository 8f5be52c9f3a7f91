"""The exception that users are meant to see.

The message of a `MedstError` is a sentence: what is wrong, where, and what to do about it. The command line prints it
without a traceback and exits with a non-zero status.
"""


class MedstError(Exception):
    """An error that the user can fix: a wrong path, a damaged file, an impossible setting."""
