"""What a user can cause, told apart from what is our fault."""


class UserError(Exception):
    """Base of every error that a user's input, files, settings or machine can cause.

    Its message is all that the user is shown: what happened, where, why, and what to do. An exception of any other kind
    that leaves a command is a bug and is shown with its traceback. Subclasses name one subject each and usually derive
    from a builtin too (`class SubsetError(UserError, ValueError)`), so that Python callers may catch either.
    """
