"""A Slurm of one node for tests and for a first look: the real daemons, started by hand from a folder, without systemd.

    python tests/one_node_slurm.py install           Debian or Ubuntu, as root: apt-get install slurmctld slurmd munge
    python tests/one_node_slurm.py start FOLDER      prints the variable of the environment that the commands need
    python tests/one_node_slurm.py stop FOLDER

Configuration, keys, sockets, ports, state and logs are the folder's own, so that a Slurm which is there already is not
touched. No cgroups (memory limits are not enforced) and no accounting (`sacct` does not answer). Jobs of the partition
`high` preempt those of `main`, which are queued again.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
_DAEMONS = ("slurmd", "slurmctld", "munged")
CPUS = 8  # claimed whatever there is: what waits for a core in these tests is the scheduler's business alone
_CONFIGURATION = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that is queued again waits until credentials of its former start have expired: 2 minutes if not told otherwise.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1,sched_min_interval=0
KillWait=10
MinJobAge=600
MessageTimeout=30
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000
PartitionName=main Nodes={host} Default=YES State=UP PriorityTier=1
PartitionName=high Nodes={host} State=UP PriorityTier=2 PreemptMode=OFF
"""


def why_not() -> str:
    """Why a Slurm cannot be started here; empty where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs Linux and root"
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch", "srun") if not _program(name)]
    return (
        f"{', '.join(missing)} not found: `python tests/one_node_slurm.py install` puts them there" if missing else ""
    )


def install() -> str:
    """Install the packages if they are missing; why that was not possible, or nothing."""
    if not why_not():
        return ""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return "Slurm cannot be installed without root and apt"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", "-q", *command], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"apt-get {command[0]} failed: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}"
    return why_not()


def start(folder: Path) -> dict[str, str]:
    """Start the daemons and wait until a job could run; what their commands need in the environment."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    host, (ctld_port, slurmd_port) = socket.gethostname().split(".")[0], _free_ports()
    configuration = folder / "slurm.conf"
    configuration.write_text(
        _CONFIGURATION.format(folder=folder, host=host, cpus=CPUS, ctld_port=ctld_port, slurmd_port=slurmd_port)
    )
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    names = {"key": key, "pid": "munged.pid", "socket": "munge.socket", "log": "munge.log", "seed": "munge.seed"}
    options = [f"--{'socket' if name == 'socket' else f'{name}-file'}={folder / path}" for name, path in names.items()]
    environment = {"SLURM_CONF": str(configuration)}
    _begin("munged", "--force", *options)
    _begin("slurmctld", "-i", "-f", str(configuration))
    _begin("slurmd", "-f", str(configuration))
    until = time.monotonic() + 30
    while not _idle(environment):
        if time.monotonic() > until:
            log = (folder / "slurmctld.log").read_text(errors="replace")
            stop(folder)
            raise RuntimeError(f"the node does not come up:\n{log[-2000:]}")
        time.sleep(0.1)
    return environment


def stop(folder: Path) -> None:
    """End the jobs and the daemons that were started there, and no others; waits until they are gone."""
    _cancel_all({"SLURM_CONF": str(folder / "slurm.conf")})
    for daemon in _DAEMONS:
        note = folder / f"{daemon}.pid"
        text = note.read_text().strip() if note.is_file() else ""
        if not text.isdigit() or daemon not in _command_line(int(text)):
            continue
        os.kill(int(text), signal.SIGTERM)
        until = time.monotonic() + 10
        while daemon in _command_line(int(text)) and time.monotonic() < until:
            time.sleep(0.05)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _begin(name: str, *options: str) -> None:
    program = _program(name)
    assert program, f"{name} is not installed"
    subprocess.run([program, *options], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=60)


def _cancel_all(environment: dict[str, str]) -> None:
    """Jobs outlive the daemons, so they are ended first; they may take KillWait for it."""
    variables = {**os.environ, **environment}
    for command in (["scancel", "--user=root"], ["squeue", "--noheader"]):
        until = time.monotonic() + 20
        while time.monotonic() < until:
            done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=30)
            if not done.stdout.strip():
                break
            time.sleep(0.2)


def _idle(environment: dict[str, str]) -> bool:
    command = ["sinfo", "--noheader", "--format=%t", "--partition=main"]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    return done.stdout.strip() == "idle"


def _command_line(process: int) -> str:
    """What runs under a number; empty once it has ended, also while nobody has asked for its exit status."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def main() -> None:
    """install | start FOLDER | stop FOLDER."""
    match sys.argv[1:]:
        case ["install"]:
            sys.exit(install() or 0)
        case ["start", folder]:
            sys.exit(why_not()) if why_not() else print(
                f"export SLURM_CONF={start(Path(folder).resolve())['SLURM_CONF']}"
            )
        case ["stop", folder]:
            stop(Path(folder).resolve())
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
