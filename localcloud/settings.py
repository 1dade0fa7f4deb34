"""What one localcloud process is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# moto answers every caller with this account; AWS's own documentation uses the same number.
ACCOUNT_ID = "123456789012"
HOST = "127.0.0.1"
DEFAULT_REGION = "us-east-1"
DEFAULT_TIME_SCALE = 60.0


@dataclass(frozen=True)
class CloudSettings:
    """Settings of one localcloud process.

    Attributes:
        state_dir: Folder that holds everything that survives a restart.
        port: TCP port on 127.0.0.1; 0 picks a free one.
        region: The one AWS region that this process plays.
        account_id: The one account in it.
        time_scale: How many times faster than on AWS the waits of endpoints' deployments pass, and the periods of the alarms that are watched in them. People's
            templates wait for minutes, so that real traffic can show what is wrong; here somebody sits in front of it.
        console: Whether job and function logs are echoed to stderr.
    """

    state_dir: Path
    port: int = 0
    region: str = DEFAULT_REGION
    account_id: str = ACCOUNT_ID
    time_scale: float = DEFAULT_TIME_SCALE
    console: bool = True
