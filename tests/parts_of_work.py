"""What other processes do with a part; they import it by name, which they cannot of a test module."""

import os
import signal


def square(number):
    return number * number


def fail_at_three(number):
    if number == 3:
        raise ValueError(f"part {number}: not this one")
    return number


def kill_itself(number):
    os.kill(os.getpid(), signal.SIGKILL)


def own_process(_):
    return os.getpid()


def threads(_):
    return os.environ["OMP_NUM_THREADS"], os.environ["POLARS_MAX_THREADS"]
