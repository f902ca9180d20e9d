"""What a shell sees: one number per branch of the error tree."""

from fda_core import errors

OK = 0
INTERRUPTED = 130
NOBODY_READS = 141
"""What shells say of programs that SIGPIPE ended, as `| head` ends them."""
OUR_BUG = 70

EXIT_CODES: dict[type[errors.FdaError], int] = {
    errors.RecipeError: 2,
    errors.CheckpointError: 3,
    errors.StorageError: 4,
    errors.NumericsError: 5,
    errors.ResourceError: 6,
    errors.JobError: 7,
    errors.ServiceError: 7,
    errors.BatchError: 2,
    errors.UnknownBatch: 7,
    errors.BatchNotOver: 7,
    errors.BatchOver: 7,
    errors.ScheduleError: 2,
    errors.UnknownSchedule: 7,
    errors.StaleSchedule: 7,
    errors.WebhookError: 2,
    errors.UnknownWebhook: 7,
    errors.UnknownDelivery: 7,
    errors.WebhookDisabled: 7,
    errors.InternalError: OUR_BUG,
}


def exit_code(problem: errors.FdaError) -> int:
    """Return the exit code of an error: that of the nearest branch above it.

    What a service refused ends like the same refusal made here.
    """
    if isinstance(problem, errors.ServiceError) and problem.code != type(problem).code:
        return exit_code_of(problem.code, otherwise=type(problem))
    return _of(type(problem))


def exit_code_of(code: str, *, otherwise: type[errors.FdaError] = errors.InternalError) -> int:
    """Return the exit code of the class that has an error code; of another if none has."""
    return _of(_classes().get(code, otherwise))


def _of(kind: type[errors.FdaError]) -> int:
    return next((EXIT_CODES[above] for above in kind.__mro__ if above in EXIT_CODES), OUR_BUG)


def _classes() -> dict[str, type[errors.FdaError]]:
    found: dict[str, type[errors.FdaError]] = {}
    waiting = [errors.FdaError]
    while waiting:
        kind = waiting.pop()
        found[kind.code] = kind
        waiting += kind.__subclasses__()
    return found
