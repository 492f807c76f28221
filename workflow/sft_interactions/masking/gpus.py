"""One GPU for each job of a machine that shows all of its GPUs to every job.

Imports the standard library only.
"""

import os
import shutil
import socket
import subprocess

_claims: list[socket.socket] = []  # a claim lasts as long as its socket, that is as its process


def claim_gpu() -> None:
    """Of several visible GPUs, leave one visible that no other process has claimed.

    Must be called before CUDA starts. A batch system that gives a job one GPU, a machine with one, and
    one without any are left alone. A claim is a socket in Linux's abstract name space: nothing is
    written, and it ends with the process, however that ends. Processes that see the GPUs under other
    names (``CUDA_VISIBLE_DEVICES`` by index in one, unset in the other) do not see each other's claims.

    Raises:
        ValueError: all visible GPUs are claimed.
    """
    names = visible_gpus()
    if len(names) < 2:
        return
    for name in names:
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0sft-interactions-gpu-{name}")
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        os.environ["CUDA_VISIBLE_DEVICES"] = name
        return
    raise ValueError(
        f"all {len(names)} GPUs are claimed by other jobs; run as many model jobs at a time as there are "
        f"GPUs: --profile profiles/gpus --resources gpu={len(names)}"
    )


def visible_gpus() -> list[str]:
    """Indices or UUIDs of the GPUs that CUDA would see."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    listed = subprocess.run(command, check=False, capture_output=True, text=True)
    return listed.stdout.split() if listed.returncode == 0 else []
