"""Several processes: how they find each other, and how they agree on what only one of them knows.

`start` comes before anything that touches a device. It asks the command's flags first and the launcher's environment
next; where neither speaks of several processes it does nothing, and everything else here costs nothing.
"""

import collections
import contextlib
import dataclasses
import functools
import math
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils

from genjax.config import ConfigError
from genjax.training.mesh import batch_sharding

Flags = Any  # int32 [devices], spread over them; () where there is one process
_LEAVE = 60  # seconds that a process which ends waits for the others before all of them are ended


@dataclasses.dataclass(frozen=True)
class Launch:
    """What a launcher's environment says about this process.

    Attributes:
        launcher: jax's name of it, "slurm" or "ompi".
        processes: how many it has started.
        process: which one this is.
        local_processes: how many it has started on this machine.
        local_process: which one of these this is.
        bound: whether it shows each process its own accelerators alone.
    """

    launcher: str
    processes: int
    process: int
    local_processes: int
    local_process: int
    bound: bool = False


def launched(environment: Mapping[str, str]) -> Launch | None:
    """Returns what SLURM's `srun` or Open MPI's `mpirun` says, or None where neither has started several processes.

    The variables of the SLURM job are not asked: a batch script and an interactive shell have them too, and are one
    process however many tasks the job may start. Those of the step are what `srun` gives to each task.
    """

    def number(name: str) -> int:
        return int(environment.get(name) or 0)

    if number("OMPI_COMM_WORLD_SIZE") > 1:  # first, because mpirun itself may run in a SLURM job
        size, rank, local_size, local_rank = (
            number(f"OMPI_COMM_WORLD_{name}") for name in ("SIZE", "RANK", "LOCAL_SIZE", "LOCAL_RANK")
        )
        return Launch("ompi", size, rank, local_size, local_rank)
    tasks = number("SLURM_STEP_NUM_TASKS")
    if tasks > 1 and "SLURM_PROCID" in environment:
        local = math.ceil(tasks / max(number("SLURM_STEP_NUM_NODES"), 1))
        bound = "SLURM_GPUS_PER_TASK" in environment  # implies --gpu-bind=per_task
        return Launch("slurm", tasks, number("SLURM_PROCID"), local, number("SLURM_LOCALID"), bound)
    return None


def local_devices(launch: Launch, visible: str | None) -> list[int] | None:
    """Returns which of the accelerators that it sees a process takes; None for all of them.

    The one process of a machine takes all. Several share evenly, unless the launcher has given each its own.

    Args:
        launch: what the launcher says.
        visible: the value of CUDA_VISIBLE_DEVICES; where it is None, there are as many devices as local processes.
    """
    if launch.local_processes == 1 or launch.bound:
        return None
    if visible is None:
        return [launch.local_process]
    share = len([device for device in visible.split(",") if device]) // launch.local_processes
    return list(range(launch.local_process * share, (launch.local_process + 1) * share)) or None


def start(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None, timeout: float = 300.0
) -> None:
    """Joins the processes of a run, where there are several; to be called before anything touches a device.

    What is not given comes from the launcher; the coordinator also from JAX_COORDINATOR_ADDRESS.

    Args:
        coordinator: "host:port" where process 0 listens, the same in every process.
        processes: how many there are; 1 for a single one, whatever the launcher says.
        process: which one this is, from 0.
        timeout: seconds to wait for the others.

    Raises:
        ConfigError: something is missing or wrong, the others have not come in time, or some have more devices.
    """
    launch = launched(os.environ)
    if processes == 1 or (launch is None and (coordinator, processes, process) == (None, None, None)):
        return
    processes = launch.processes if processes is None and launch else processes
    process = launch.process if process is None and launch else process
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    if processes is None or process is None:
        missing = "--processes=N, how many there are" if processes is None else "--process=I, which one this is"
        raise ConfigError(f"several processes, and nobody says {missing}")
    if not 0 <= process < processes:
        raise ConfigError(f"--process = {process}, --processes = {processes}: processes are numbered from 0")
    if coordinator is not None:
        _check_address(coordinator)
    elif launch is None or (launch.launcher == "ompi" and "OMPI_MCA_orte_hnp_uri" not in os.environ):
        # Open MPI 5 has no variable that tells where it has been started from.
        raise ConfigError("several processes, and nobody says --coordinator=HOST:PORT, where process 0 listens")

    # Its handler would swallow the SIGTERM that comes before the loop's own handler is there, or after it is gone.
    jax.config.update("jax_enable_preemption_service", False)
    devices = None if launch is None else local_devices(launch, os.environ.get("CUDA_VISIBLE_DEVICES"))
    join = functools.partial(
        jax.distributed.initialize,
        coordinator,
        processes,
        process,
        devices,
        "deactivate" if launch is None or coordinator else launch.launcher,
        initialization_timeout=round(2 * timeout) + 60,  # longer than ours, see _in_thread
        shutdown_timeout_seconds=_LEAVE,
    )
    failed = _in_thread(join, timeout)
    if failed is not None:
        who, where = f"process {process} of {processes}", coordinator or "the coordinator"
        raise ConfigError(f"{who}: {failed or _why_late(process, coordinator, timeout)}; joining at {where}")
    if devices is None:
        # Where it finds the coordinator itself, jax keeps one device a process, the local process's number.
        jax.config.update("jax_cuda_visible_devices", "all")
        jax.config.update("jax_rocm_visible_devices", "all")
    counts = collections.Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:  # each process reads an equal part of the batch
        each = ", ".join(str(counts[index]) for index in range(processes))
        raise ConfigError(f"the processes have {each} devices: they must have equally many")


@contextlib.contextmanager
def together(what: str) -> Iterator[None]:
    """Raises in every process where one fails within the context; else the others would wait for that one for ever.

    All processes must enter it, and none may wait for another inside.

    Args:
        what: what is done there, for the message of those that did not fail.

    Raises:
        ConfigError: another process has failed, which says itself why.
    """
    if jax.process_count() == 1:
        yield
        return
    error: BaseException | None = None
    try:
        yield
    except Exception as raised:
        error = raised
    failed = np.flatnonzero(multihost_utils.process_allgather(np.int32(error is not None)))
    if error is not None:
        raise error
    if failed.size:
        raise ConfigError(f"{what}: process {failed[0]} failed, and says why")


@functools.lru_cache(maxsize=8)  # zero in nearly every step
def flags(mesh: jax.sharding.Mesh, value: int) -> Flags:
    """Returns a number that this process alone may have, as the input of a step that all processes take.

    Args:
        mesh: the devices of all processes.
        value: this process's number, such as that of a signal; 0 for nothing.
    """
    if jax.process_count() == 1:
        return ()
    here = np.full(mesh.local_mesh.size, value, np.int32)
    return jax.make_array_from_process_local_data(batch_sharding(mesh), here, (mesh.size,))


def greatest(flags: Flags) -> Flags:
    """Returns the greatest of the processes' numbers, int32 []; for use within the jitted step."""
    return jax.tree.map(jnp.max, flags)


def agreed(told: Array | tuple[()], value: int) -> int:
    """Returns the number that all processes act on after this step; it is the same in every one.

    Args:
        told: what `greatest` gave in the step before, so that reading it waits for nothing; () in the first step.
        value: this process's own number, which is the answer where there is no other process.
    """
    if jax.process_count() == 1:
        return value
    return 0 if isinstance(told, tuple) else int(told)


def leave(exit_code: int) -> None:
    """Ends this process at once where it is one of several, which orbax and jax would else let wait for each other.

    To be called when all of them stop for the same reason; one process ends as programs do.
    """
    if jax.process_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)


def _check_address(coordinator: str) -> None:
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and 0 < int(port) < 2**16):
        raise ConfigError(f"--coordinator = {coordinator!r}: must be HOST:PORT, such as node1:12345")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except OSError as error:
        raise ConfigError(f"--coordinator = {coordinator!r}: {host}: {error.strerror}") from None


def _in_thread(join: Callable[[], None], timeout: float) -> str | None:
    """Returns None once it is done, what went wrong, or "" after the timeout.

    XLA ends the process by abort() when it waits too long, and lets no signal through while it waits.
    """
    result: list[str | None] = []

    def work() -> None:
        try:
            join()
            result.append(None)
        except Exception as error:
            result.append(str(error).splitlines()[0])

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout)
    return result[0] if result else ""


def _why_late(process: int, coordinator: str | None, timeout: float) -> str:
    late = f"not all processes have come within {timeout:g} s"
    if process == 0 or coordinator is None:
        return late
    host, _, port = coordinator.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        return f"nobody has answered within {timeout:g} s ({error.strerror or error})"
    return late
