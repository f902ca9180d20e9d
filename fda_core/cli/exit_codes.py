"""What a shell sees: one number per branch of the error tree."""

from fda_core import errors

OK = 0
INTERRUPTED = 130
OUR_BUG = 70

EXIT_CODES: dict[type[errors.FdaError], int] = {
    errors.RecipeError: 2,
    errors.CheckpointError: 3,
    errors.StorageError: 4,
    errors.NumericsError: 5,
    errors.ResourceError: 6,
    errors.BatchError: 2,
    errors.ScheduleError: 2,
    errors.WebhookError: 2,
    errors.InternalError: OUR_BUG,
}


def exit_code(problem: errors.FdaError) -> int:
    """Return the exit code of an error: that of the nearest branch above it."""
    for kind in type(problem).__mro__:
        if kind in EXIT_CODES:
            return EXIT_CODES[kind]
    return OUR_BUG
