"""Why a training ends before its last step, beside signals."""

import errno

NON_FINITE, DISK_FULL = 3, 4  # exit statuses of `genjax train`
FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}  # what systems answer where there is no space, or no more is allowed


class TrainingStopped(Exception):
    """A run that cannot go on by itself: what happened and what to do, in a few lines.

    Attributes:
        exit_code: the exit status of the command.
    """

    exit_code: int = 1


class NonFiniteStep(TrainingStopped):
    """A loss or a gradient is infinite or not a number, and the policy says stop."""

    exit_code = NON_FINITE


class DiskFull(TrainingStopped):
    """A checkpoint could not be written for want of space; the ones before it are as they were."""

    exit_code = DISK_FULL
