"""The one exception that a user is meant to see.

A `MedstError` is a sentence: what is wrong, where, and what to do about it. The command line prints it
without a traceback and exits non-zero; library users catch it like any other exception.
"""


class MedstError(Exception):
    """Something the user can mend: a wrong path, a damaged file, an impossible setting."""
