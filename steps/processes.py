"""One training process or several: what `torchrun` tells through the environment (RANK, WORLD_SIZE, ...)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed

# Its functions take the group that there is when they are imported as a default. DistributedDataParallel imports it, and the group would then
# outlive its end: gloo's threads would run on until the process ends, and abort it now and then.
import torch.distributed.nn
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among `count`, and the device it computes on."""

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process is the one that validates, writes and reports."""
        return self.rank == 0

    def gathered(self, values: Tensor) -> Tensor:
        """The rows of all processes (each brings as many), in rank order."""
        if self.count == 1:
            return values
        parts = [torch.empty_like(values) for _ in range(self.count)]
        torch.distributed.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.count > 1:
            torch.distributed.barrier()


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the processes that `torchrun` started (NCCL on GPUs, gloo on CPUs); alone without it."""
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        torch.backends.cudnn.deterministic = True
    if count == 1:
        yield Processes(rank, count, device)
        return
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    processes = Processes(rank, count, device)
    try:
        yield processes
        processes.wait()  # nobody closes a connection that another still reads from
    finally:
        torch.distributed.destroy_process_group()
