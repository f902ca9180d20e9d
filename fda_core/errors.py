"""Every error the engine raises on purpose: one tree, stable codes.

Each class says who is to blame and whether trying again can help. The message has the
offending name and the numbers; the hint says what to do. Exit codes and HTTP statuses are
kept where they are used, in one table per side.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Blame = Literal["user", "data", "system", "us"]


class FdaError(Exception):
    """The root: a message, an optional hint and the names that matter as context."""

    code: ClassVar[str] = "error"
    blame: ClassVar[Blame] = "us"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None, **context: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context = context

    def as_dict(self) -> dict[str, object]:
        """Return the error as plain data: code, message, hint, blame, retryable, context.

        All texts can be written as UTF-8, whatever a stranger's file had in its names.
        """
        return {
            "code": self.code,
            "message": _plain(self.message),
            "hint": self.hint,
            "blame": self.blame,
            "retryable": self.retryable,
            "context": {key: _plain(value) for key, value in self.context.items()},
        }

    def __reduce__(self) -> tuple[object, ...]:
        """Keep hint and context when an error crosses a process border."""
        return (_rebuild, (type(self), self.message, self.hint, self.context))


def _rebuild(
    kind: type[FdaError], message: str, hint: str | None, context: dict[str, object]
) -> FdaError:
    return kind(message, hint=hint, **context)


def _plain(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if value is None or isinstance(value, (int, float, bool)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value)


class RecipeError(FdaError):
    """The document the caller wrote cannot be carried out."""

    code = "recipe_invalid"
    blame: ClassVar[Blame] = "user"

    complaints: tuple[RecipeError, ...] = ()
    """Everything that is wrong, this error first, where more than one thing was found."""


class UnknownKey(RecipeError):
    """A key that recipes do not have; the nearest known one is named."""

    code = "unknown_key"


class UnknownMethod(RecipeError):
    """A method that is not in the registry."""

    code = "unknown_method"


class BadParameter(RecipeError):
    """A parameter of the wrong type, outside its range, or not of this method."""

    code = "bad_parameter"


class DuplicateExpert(RecipeError):
    """Two experts of one name."""

    code = "duplicate_expert"


class NoExperts(RecipeError):
    """Fewer experts than the method needs."""

    code = "no_experts"


class OutputExists(RecipeError):
    """The output is there already; nothing is overwritten."""

    code = "output_exists"


class OutputInsideInput(RecipeError):
    """The output lies inside an input, or an input inside the output."""

    code = "output_inside_input"


class CheckpointError(FdaError):
    """A checkpoint cannot be used."""

    code = "checkpoint_invalid"
    blame: ClassVar[Blame] = "data"


class MissingConfig(CheckpointError):
    """A checkpoint without a readable config.json."""

    code = "missing_config"


class MissingShard(CheckpointError):
    """A file the index names is not there, or there are no weights at all."""

    code = "missing_shard"


class CorruptShard(CheckpointError):
    """A safetensors file whose header lies, overlaps or is cut off."""

    code = "corrupt_shard"


class ChangedInput(CheckpointError):
    """A file that is no longer what was planned with."""

    code = "changed_input"


class PickleRefused(CheckpointError):
    """Weights as a pickle, which can run code when it is read."""

    code = "pickle_refused"


class MissingTensor(CheckpointError):
    """A tensor that one input has and another lacks."""

    code = "missing_tensor"


class UnexpectedTensor(CheckpointError):
    """A tensor inside a layer that the base does not have."""

    code = "unexpected_tensor"


class ShapeMismatch(CheckpointError):
    """A tensor of another shape than the base's."""

    code = "shape_mismatch"


class UnsupportedDtype(CheckpointError):
    """A dtype that cannot be merged."""

    code = "unsupported_dtype"


class UnknownArchitecture(CheckpointError):
    """A model family whose layers we do not know."""

    code = "unknown_architecture"


class NotSameBase(CheckpointError):
    """An expert of another family, depth or width than the base."""

    code = "not_same_base"


class UnsupportedAdapter(CheckpointError):
    """An adapter of a kind, or with a setting, that cannot be merged as it is."""

    code = "unsupported_adapter"


class OutputCorrupt(CheckpointError):
    """A finished output whose files differ from its manifest."""

    code = "output_corrupt"


class StorageError(FdaError):
    """Something could not be read or written."""

    code = "storage_error"
    blame: ClassVar[Blame] = "system"


class NotFound(StorageError):
    """There is nothing at this address."""

    code = "not_found"
    blame: ClassVar[Blame] = "user"


class Forbidden(StorageError):
    """Reading or writing is not allowed there."""

    code = "forbidden"
    blame: ClassVar[Blame] = "user"


class Unavailable(StorageError):
    """Storage does not answer; trying again can help."""

    code = "storage_unavailable"
    retryable = True


class LostResult(StorageError):
    """What finished units left is gone; they have to be done again."""

    code = "lost_result"
    retryable = True

    @property
    def units(self) -> tuple[str, ...]:
        """Return the units whose results are gone."""
        found = self.context.get("units")
        return tuple(map(str, found)) if isinstance(found, (list, tuple)) else ()


class UnsupportedScheme(StorageError):
    """An address of a kind that no storage here serves."""

    code = "unsupported_scheme"
    blame: ClassVar[Blame] = "user"


class NumericsError(FdaError):
    """Numbers went wrong."""

    code = "numerics_error"
    blame: ClassVar[Blame] = "data"


class NonFinite(NumericsError):
    """NaN or infinity in an input or a result; tensor, expert and position are named."""

    code = "non_finite"


class ResourceError(FdaError):
    """The machine has too little of something."""

    code = "resource_error"
    blame: ClassVar[Blame] = "system"


class OutOfDisk(ResourceError):
    """The disk is full, or would be."""

    code = "out_of_disk"


class OutOfHostMemory(ResourceError):
    """Not enough main memory."""

    code = "out_of_host_memory"


class OutOfDeviceMemory(ResourceError):
    """Not enough memory on the accelerator."""

    code = "out_of_device_memory"


class NoDevice(ResourceError):
    """The device asked for is not there."""

    code = "no_device"
    blame: ClassVar[Blame] = "user"


class WorkerDied(ResourceError):
    """A worker process ended without a word, more than once on the same unit."""

    code = "worker_died"


class JobError(FdaError):
    """What is asked of a job cannot be done."""

    code = "job_error"
    blame: ClassVar[Blame] = "user"


class UnknownJob(JobError):
    """There is no such job, or none that the caller may see."""

    code = "unknown_job"


class IllegalTransition(JobError):
    """The job is in a state from which no way leads to the one asked for."""

    code = "illegal_transition"


class AlreadyFinished(JobError):
    """The job is over."""

    code = "already_finished"


class ServiceError(FdaError):
    """The service refused, did not answer, or could not be started.

    `code`, `blame` and `retryable` are the answer's where there was one; the context then
    has `status` and `request_id`.
    """

    code = "service_error"
    blame: ClassVar[Blame] = "system"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        code: str | None = None,
        blame: Blame | None = None,
        retryable: bool | None = None,
        **context: object,
    ) -> None:
        super().__init__(message, hint=hint, **context)
        said = {"code": code, "blame": blame, "retryable": retryable}
        # Of this one error, over the class's: the answer's code is what callers look at.
        self.__dict__.update({key: value for key, value in said.items() if value is not None})

    def __reduce__(self) -> tuple[object, ...]:
        """Keep what the answer said, too."""
        said = {"code": self.code, "blame": self.blame, "retryable": self.retryable}
        return (_rebuild, (type(self), self.message, self.hint, {**self.context, **said}))


class ServiceUnreachable(ServiceError):
    """Nobody answers at the service's address, or the connection broke."""

    code = "service_unreachable"
    retryable = True


class NoService(ServiceError):
    """No address or key of a service was given, and none runs here."""

    code = "no_service"
    blame: ClassVar[Blame] = "user"


class JobUnsuccessful(ServiceError):
    """A job that was waited for was cancelled or expired."""

    code = "job_unsuccessful"
    blame: ClassVar[Blame] = "user"


class AlreadyRunning(ServiceError):
    """Another process uses this folder."""

    code = "already_running"
    blame: ClassVar[Blame] = "user"


class PortTaken(ServiceError):
    """Another program listens on the port."""

    code = "port_taken"
    blame: ClassVar[Blame] = "user"


class ProcessFailed(ServiceError):
    """A process of the service cannot be started, or dies again and again."""

    code = "process_failed"


class MissingExtra(ServiceError):
    """A part of this package that needs an extra which is not installed."""

    code = "missing_extra"
    blame: ClassVar[Blame] = "user"


class BatchError(FdaError):
    """A batch cannot be had as asked."""

    code = "batch_error"
    blame: ClassVar[Blame] = "user"


class UnknownBatch(BatchError):
    """No batch of this id that the caller may see."""

    code = "unknown_batch"


class BatchInvalid(BatchError):
    """Some jobs of a batch cannot be queued, so none was; `errors` in the context has each."""

    code = "batch_invalid"


class BatchNotOver(BatchError):
    """A batch that still has jobs on their way."""

    code = "batch_not_over"


class BatchOver(BatchError):
    """A batch all of whose jobs are over already."""

    code = "batch_over"


class ScheduleError(FdaError):
    """A schedule cannot be had as asked."""

    code = "schedule_error"
    blame: ClassVar[Blame] = "user"


class UnknownSchedule(ScheduleError):
    """No schedule of this id that the caller may see."""

    code = "unknown_schedule"


class BadCron(ScheduleError):
    """A cron expression that cannot be read, or that names no time."""

    code = "bad_cron"


class UnknownZone(ScheduleError):
    """A time zone that the IANA database does not have."""

    code = "unknown_zone"


class SameOutputAgain(ScheduleError):
    """Runs of a schedule would write to one place; nothing is ever overwritten."""

    code = "same_output_again"


class StaleSchedule(ScheduleError):
    """The schedule was changed since the caller read it."""

    code = "stale_schedule"


class WebhookError(FdaError):
    """A webhook cannot be had as asked."""

    code = "webhook_error"
    blame: ClassVar[Blame] = "user"


class UnknownWebhook(WebhookError):
    """No webhook of this id that the caller may see."""

    code = "unknown_webhook"


class UnknownDelivery(WebhookError):
    """No delivery of this id that the caller may see."""

    code = "unknown_delivery"


class UnsafeAddress(WebhookError):
    """An address that webhooks may not go to: not https, private, or with a password in it."""

    code = "unsafe_address"


class WebhookDisabled(WebhookError):
    """A webhook that was switched off."""

    code = "webhook_disabled"


class InternalError(FdaError):
    """A broken invariant of ours."""

    code = "internal_error"


class Cancelled(Exception):
    """Work was stopped on purpose; the journal is kept."""
