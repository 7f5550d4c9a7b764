"""A sweep on a cluster of two nodes on this machine: an array job of Slurm, one task killed, one requeued, results equal to the local sweep's. Needs
root and Debian's slurm-wlm and munge; skipped with a reason elsewhere."""
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from test_cli import DEMO, qbench  # noqa: F401
from test_workers import leased, outcome, runs_of, wait_for

SWEEP = f"""model: {{path: {DEMO}, dtype: float32}}
calibration: {{corpus: {DEMO}/calibration.txt, sampling: random_windows, samples: 160, seq_len: 128}}
scheme:
  weights: {{type: [int3, int4], symmetric: false, granularity: group, group_size: 64}}
pipeline: [[rtn], [gptq], [awq, clip]]
evaluation:
  - {{corpus: {DEMO}/evaluation.txt, seq_len: 128, windows: 20}}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """slurmctld and two slurmd of one core each; every file in a folder that goes afterwards."""
    if os.geteuid() != 0:
        pytest.skip("starting a cluster is root's")
    missing = [name for name in ("slurmctld", "slurmd", "sbatch", "munged") if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]
    if missing:
        pytest.skip(f"{missing[0]} is not installed (Debian: slurm-wlm, munge)")
    folder, host = tmp_path_factory.mktemp("slurm"), socket.gethostname()
    for name in ("ctld", "n1", "n2", "log"):
        (folder / name).mkdir()
    ports = []
    for _ in range(3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    nodes = "\n".join(f"NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[i]} CPUs=1 RealMemory=3000 State=UNKNOWN" for i in (1, 2))
    conf = folder / "slurm.conf"
    conf.write_text(f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/log/ctld
SlurmdLogFile={folder}/log/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
{nodes}
PartitionName=test Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
""")
    environment = os.environ | {"SLURM_CONF": str(conf), "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}

    def call(*words, **options):
        return subprocess.run([str(word) for word in words], env=environment, capture_output=True, text=True, timeout=60, check=True, **options).stdout
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    try:
        call("munged", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid", f"--log-file={folder}/log/munged", f"--seed-file={folder}/munge.seed", "--num-threads=2")
        call("slurmctld", "-f", conf)
        for node in ("n1", "n2"):
            call("slurmd", "-N", node, "-f", conf)
        wait_for(lambda: subprocess.run(["sinfo", "-h", "-o", "%A"], env=environment, capture_output=True, text=True).stdout.strip().split("/")[0].isdigit()
                 and call("sinfo", "-h", "-o", "%A").strip() == "2/0" or call("sinfo", "-h", "-o", "%A").strip() == "0/2", 60)
        call.environment = environment
        yield call
    finally:
        subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True)
        time.sleep(1)
        for name in ("n1", "n2", "ctld", "munged"):
            try:
                os.kill(int((folder / f"{name}.pid").read_text().split()[0]), signal.SIGTERM)
            except (OSError, ValueError, IndexError):
                pass


def killed(processes):
    """Whether one of them was; it may have ended meanwhile."""
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
            return True
        except ProcessLookupError:
            continue
    return False


def task_of(workspace, run):
    return json.loads((workspace / "runs" / run / "request.json").read_text())["task"]


def test_a_sweep_on_two_nodes_equals_the_local_one(cluster, qbench, tmp_path):  # noqa: F811
    (tmp_path / "s.yaml").write_text(SWEEP)
    qbench("sweep", "s.yaml", "-w", "local", "-q")
    local = {name: outcome(run) for name, run in runs_of(tmp_path / "local").items()}
    assert len(local) == 6
    workspace = tmp_path / "w"
    submitted = json.loads(qbench("sweep", "s.yaml", "-w", workspace, "--slurm", "partition=test,time=10", "--slurm", "grace=30", "--json", env=cluster.environment).stdout)
    assert len(submitted["runs"]) == 6 and submitted["job"] > 0
    script = (Path(submitted["folder"]) / "job.sh").read_text()
    for line in ("#SBATCH --array=0-5", "#SBATCH --requeue", "#SBATCH --signal=B:USR1@30", "#SBATCH --partition=test", "#SBATCH --time=10"):
        assert line in script.splitlines()
    status = lambda: {row["task"]: row for row in json.loads(qbench("sweep", "status", "-w", workspace, "--json", env=cluster.environment).stdout)}  # noqa: E731
    assert set(status()) == {f"{submitted['job']}_{i}" for i in range(6)}
    # What is queued at the cluster is not started here as well.
    assert {row["device"] for row in json.loads(qbench("queue", "-w", workspace, "--json").stdout)} <= {"slurm"}
    qbench("work", "-w", workspace)
    # One worker is killed, another task is requeued by an administrator.
    wait_for(lambda: killed(leased(workspace)))

    def requeued():
        """Whether a task that runs was; one may end meanwhile."""
        task = next((row["task"] for row in status().values() if row["slurm"] == "RUNNING" and row["status"] == "running"), None)
        return task and subprocess.run(["scontrol", "requeue", task], env=cluster.environment, capture_output=True).returncode == 0
    wait_for(requeued)

    def all_done():
        # Slurm holds what was requeued back for two minutes: an administrator would not wait either.
        for task, row in status().items():
            if row["slurm"].startswith("PENDING") and "BeginTime" in row["slurm"]:
                subprocess.run(["scontrol", "update", f"JobId={task}", "StartTime=now"], env=cluster.environment, capture_output=True)
        return all(json.loads((run / "report.json").read_text())["status"] == "finished" for run in runs_of(workspace).values())
    wait_for(all_done, 400)
    assert {name: outcome(run) for name, run in runs_of(workspace).items()} == local
    wait_for(lambda: not list(workspace.rglob("request.json")))
    nodes = {row["node"] for row in status().values() if row["node"]}
    assert nodes <= {"n1", "n2"}
    # Nothing is left to hand over.
    assert json.loads(qbench("sweep", "s.yaml", "-w", workspace, "--slurm", "partition=test", "--json", env=cluster.environment).stdout)["runs"] == []


def test_before_the_time_limit_a_run_ends_after_its_block_and_goes_on_later(cluster, qbench, tmp_path):  # noqa: F811
    (tmp_path / "s.yaml").write_text(SWEEP.replace("[int3, int4]", "[int4]").replace("[[rtn], [gptq], [awq, clip]]", "[[awq, clip]]").replace("samples: 160", "samples: 640"))
    workspace = tmp_path / "w"
    (run,) = json.loads(qbench("sweep", "s.yaml", "-w", workspace, "--slurm", "partition=test", "--json", env=cluster.environment).stdout)["runs"]
    folder = workspace / "runs" / run
    wait_for(lambda: (folder / "blocks" / "block-0000.json").exists())
    task = task_of(workspace, run)
    cluster("scancel", "--batch", "--signal=USR1", task)  # as Slurm itself does before the limit
    wait_for(lambda: json.loads((folder / "report.json").read_text())["status"] == "interrupted")
    assert json.loads((folder / "report.json").read_text())["error"] and 0 < len(list((folder / "blocks").glob("*.safetensors"))) < 4
    shown = lambda: next(row for row in json.loads(qbench("sweep", "status", "-w", workspace, "--json", env=cluster.environment).stdout))  # noqa: E731
    wait_for(lambda: shown()["slurm"].startswith("PENDING"))
    qbench("sweep", "cancel", "-w", workspace, env=cluster.environment)
    wait_for(lambda: not shown()["slurm"].startswith(("PENDING", "RUNNING")))
    assert not (folder / "request.json").exists()
    qbench("queue", "resume", run, "-w", workspace)
    qbench("work", "-w", workspace)
    assert json.loads((folder / "report.json").read_text())["status"] == "finished"


def test_mistakes_are_told_before_anything_is_made(qbench, tmp_path):  # noqa: F811
    (tmp_path / "s.yaml").write_text(SWEEP)
    for text, part in (("array=1", "array is set by the sweep itself"), ("Partition=x", 'found "Partition=x"'), ("grace=soon", 'grace: found "soon"')):
        assert part in qbench("sweep", "s.yaml", "-w", "w", "--slurm", text, code=4).stderr
    assert not (tmp_path / "w").exists()
    told = qbench("sweep", "s.yaml", "-w", "w", "--slurm", "partition=test", code=5, env=os.environ | {"PATH": "/nowhere"}).stderr
    assert 'there is no program "sbatch"' in told and not list((tmp_path / "w" / "runs").iterdir())
