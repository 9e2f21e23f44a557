"""Every error that Reelmill raises on purpose, with the exit code it leads to.

A message says what is wrong, where, with which values, and what to do about it.

    ReelmillError                 1
    ├── UsageError                2   the command, a path or a file that a user gave is wrong
    │   ├── SourceError           2   a source of media: missing, empty, unreadable
    │   ├── RecipeError           2   a recipe that cannot run as written
    │   ├── OverrideError         2   --set Stage.field=value that names no such thing
    │   ├── PromptError           2   a prompt or its reference files
    │   └── WeightsError          2   pretrained weights that are missing or altered
    ├── MediaError                1   one media file; becomes the outcome `failed`, never ends a run
    ├── WorkspaceError            1   schema version, lock, disk full, read-only
    ├── DatasetError              1   a shard, index or latent file that is not what it claims to be
    ├── CheckpointError           1   a checkpoint that is damaged or of another config
    ├── ConservationError         1   in != kept + rejected + failed: a defect of ours
    ├── BudgetExceeded            3   finished, but more clips failed than the recipe allows
    ├── GateError                 4   training on data that nobody approved
    ├── Diverged                 70   training lost its loss to NaN or a spike twice at one step
    └── Interrupted              75   stopped from outside; the same command resumes
        └── TimedOut             75   it took longer than it may; the same command resumes
"""


class ReelmillError(Exception):
    """Base of all errors of this package; its text is fit for a user's eyes."""

    exit_code = 1


class UsageError(ReelmillError):
    exit_code = 2


class SourceError(UsageError):
    pass


class RecipeError(UsageError):
    pass


class OverrideError(UsageError):
    pass


class PromptError(UsageError):
    pass


class WeightsError(UsageError):
    pass


class MediaError(ReelmillError):
    """One media file or clip that could not be read.

    `cause` is `corrupt` (the bytes are at fault: quarantined until they change) or `transient`
    (the machine is: worth another try).
    """

    def __init__(self, message: str, *, cause: str = "corrupt"):
        super().__init__(message)
        self.cause = cause


class WorkspaceError(ReelmillError):
    pass


class DatasetError(ReelmillError):
    pass


class CheckpointError(ReelmillError):
    pass


class ConservationError(ReelmillError):
    pass


class BudgetExceeded(ReelmillError):  # noqa: N818 - a state of the run, not a fault of the program
    exit_code = 3


class GateError(ReelmillError):
    exit_code = 4


class Diverged(ReelmillError):  # noqa: N818
    exit_code = 70


class Interrupted(ReelmillError):  # noqa: N818
    exit_code = 75


class TimedOut(Interrupted, TimeoutError):  # noqa: N818
    """told: whether the message already says what took too long."""

    def __init__(self, message: str, *, told: bool = False):
        super().__init__(message)
        self.told = told
