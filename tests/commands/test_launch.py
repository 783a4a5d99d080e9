"""The scripts of launch/, with stand-ins for gcloud, SLURM and the cluster: what they would do, and what they do."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kubeflow_trainer_api.models import JobsetV1alpha2JobSet

from scalevae_jax import train
from scalevae_jax.runtime import processes

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = [*sorted(LAUNCH.glob("*.sh")), LAUNCH / "slurm.sbatch"]
COMMANDS = [path for path in SCRIPTS if path.name != "common.sh"]
SMOKE = ["--config", "configs/smoke.py"]


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a program of this name first on PATH; it is a bash script, and `calls` are the arguments it was given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, body: str = "") -> Path:
        path = folder / name
        record = f"printf '%s\\0' \"$@\" $'\\x1e' >> {tmp_path / name}.calls"  # no newline, so in one write
        path.write_text(f"#!/usr/bin/env bash\n{record}\n{body}\n")
        path.chmod(0o755)
        return path

    return make


def calls(tmp_path: Path, name: str) -> list[list[str]]:
    path = tmp_path / f"{name}.calls"
    return [call.split("\0")[:-1] for call in path.read_text().split("\x1e\0")[:-1]] if path.exists() else []


def start(script: str, *arguments: str, **environment: str) -> subprocess.Popen:
    line = ["bash", str(LAUNCH / script), *arguments]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a script that ignores it cannot trap it
    process = subprocess.Popen(line, cwd=ROOT, env=os.environ | environment, text=True, **pipes)
    signal.signal(signal.SIGINT, before)
    return process


def run(script: str, *arguments: str, **options) -> tuple[int, list[str], str]:
    process = start(script, *arguments, **options)
    out, error = process.communicate(timeout=200)
    return process.returncode, out.splitlines(), error


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path):
    line = [str(Path(sys.executable).parent / "shellcheck"), str(path)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.name)
def test_help_is_the_comment_at_the_top(path):
    code, out, error = run(path.name, "--help")
    assert (code, error) == (0, "")
    assert "--dry-run" in "\n".join(out)
    assert not any(line.startswith("#") for line in out)


WRONG = {
    ("local.sh",): "expected the number of PROCESSES",
    ("local.sh", "two", *SMOKE): "not 'two'",
    ("local.sh", "2"): "arguments of train are missing",
    ("slurm.sbatch",): "arguments of train are missing",
    ("slurm.sbatch", *SMOKE): "not in a job",
    ("tpu_pod.sh",): "create, install, run, fetch or delete",
    ("tpu_pod.sh", "--region", "x", "delete"): "no option --region",
    ("tpu_pod.sh", "create", "v6e-8"): "create: expected TYPE and VERSION",
    ("tpu_pod.sh", "create", "tpu7x-8", "x"): "use launch/gke_jobset.yaml",
    ("tpu_pod.sh", "run"): "run: expected arguments of train",
    ("tpu_pod.sh", "fetch", "gs://a"): "fetch: expected WORKDIR and FOLDER",
    ("tpu_pod.sh", "delete", "all"): "delete: expected no arguments",
}


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_arguments_are_one_line_and_exit_code_2(arguments, stand_in, tmp_path):
    stand_in("gcloud")
    code, out, error = run(*arguments)
    assert (code, out) == (2, [])
    (line,) = error.splitlines()
    assert line.startswith("error: ")
    assert WRONG[arguments] in line
    assert calls(tmp_path, "gcloud") == []


def test_a_dry_run_of_local_prints_a_line_a_process():
    code, out, _ = run("local.sh", "--dry-run", "2", *SMOKE, "--workdir", "a b", PYTHON="python", DEVICES="3", PORT="9")
    assert code == 0
    settings = (
        "env NPROC=12 'XLA_FLAGS=" + os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=3'"
    )
    command = "python -m scalevae_jax.train --distributed --coordinator=127.0.0.1:9 --num_processes=2"
    assert out == [f"{settings} {command} --process_id={i} --config configs/smoke.py --workdir 'a b'" for i in range(2)]


POD = {
    ("--spot", "create", "v6e-32", "v2-alpha-tpuv6e"): [
        "compute tpus tpu-vm create pod --accelerator-type=v6e-32 --version=v2-alpha-tpuv6e --spot --zone=z"
    ],
    ("run", *SMOKE, "--workdir", "/a b"): [
        "compute tpus tpu-vm ssh pod --worker=all --command='cd scalevae_jax && JAX_COMPILATION_CACHE_DIR=gs://b/c "
        ".venv/bin/python -m scalevae_jax.train --distributed --config configs/smoke.py "
        "--workdir '\"'\"'/a b'\"'\"'' --zone=z"
    ],
    ("fetch", "gs://b/run", "here"): ["storage cp gs://b/run here --recursive"],
    ("fetch", "/shared/run", "here"): ["compute tpus tpu-vm scp pod:/shared/run here --recurse --worker=0 --zone=z"],
    ("fetch", "runs/a", "here"): ["compute tpus tpu-vm scp pod:scalevae_jax/runs/a here --recurse --worker=0 --zone=z"],
    ("delete",): ["compute tpus tpu-vm delete pod --quiet --zone=z"],
}


@pytest.mark.parametrize("arguments", POD, ids=" ".join)
def test_gcloud_is_called_as_the_dry_run_prints(arguments, stand_in, tmp_path, monkeypatch):
    stand_in("gcloud")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "gs://b/c")
    options = ["--name", "pod", "--zone", "z"]
    code, out, _ = run("tpu_pod.sh", *options, "--dry-run", *arguments)
    assert code == 0
    assert calls(tmp_path, "gcloud") == []
    assert [shlex.split(line) for line in out] == [["gcloud", *shlex.split(line)] for line in POD[arguments]]
    assert run("tpu_pod.sh", *options, *arguments)[0] == 0
    assert calls(tmp_path, "gcloud") == [shlex.split(line) for line in POD[arguments]]


def test_install_sends_the_commit_to_all_workers(stand_in, tmp_path):
    """What is sent unpacks to the checkout; on the workers are done: unpack, environment, locked packages, TPU's."""
    stand_in("gcloud", f'[[ $4 != scp ]] || tar -tzf "$5" > {tmp_path / "sent"}')
    code, out, error = run("tpu_pod.sh", "install")
    assert (code, out) == (0, []), error
    copy, install = calls(tmp_path, "gcloud")
    assert copy == "compute tpus tpu-vm scp scalevae_jax.tar.gz scalevae: --worker=all".split()
    assert install[:6] == "compute tpus tpu-vm ssh scalevae --worker=all".split()
    assert "uv pip install --quiet -r requirements.lock 'jax[tpu]'" in install[6]
    sent = (tmp_path / "sent").read_text().split()
    assert {"scalevae_jax/requirements.lock", "scalevae_jax/scalevae_jax/train.py"} <= set(sent)
    assert not (ROOT / "scalevae_jax.tar.gz").exists()


# A step of two tasks on each of two nodes, as SLURM describes it to each; their process ids are kept for scancel.
SRUN = """
for ((i = 0; i < SLURM_NTASKS; i++)); do
  (
    echo $BASHPID >> "$TASKS"
    SLURM_PROCID=$i SLURM_LOCALID=$((i % 2)) SLURM_STEP_NUM_TASKS=$SLURM_NTASKS SLURM_STEP_NODELIST=$NODES exec "$@"
  ) &
done
code=0
for pid in $(jobs -p); do wait "$pid" || code=$?; done
exit $code
"""
JOB = {"SLURM_JOB_ID": "4097", "SLURM_NTASKS": "4", "SLURM_TASKS_PER_NODE": "2(x2)", "NODES": "gpu[07-08]"}


@pytest.fixture
def slurm(stand_in, tmp_path, monkeypatch):
    """A scheduler's commands and its variables in the batch script."""
    stand_in("srun", SRUN)
    stand_in("scancel", 'kill -TERM $(cat "$TASKS")')
    stand_in("scontrol")
    for name, value in (JOB | {"TASKS": str(tmp_path / "tasks")}).items():
        monkeypatch.setenv(name, value)


def test_each_task_of_a_slurm_job_has_its_number(slurm, stand_in, tmp_path, monkeypatch):
    python = stand_in("python-of-the-job", f'env --null > "{tmp_path}/environment-$SLURM_PROCID"')
    code, _, error = run("slurm.sbatch", *SMOKE, PYTHON=str(python), SLURM_GPUS_ON_NODE="2")
    assert code == 0, error
    assert calls(tmp_path, "python-of-the-job") == 4 * [["-m", "scalevae_jax.train", *SMOKE]]
    for i in range(4):
        for line in (tmp_path / f"environment-{i}").read_text().split("\0")[:-1]:
            monkeypatch.setenv(*line.split("=", 1))
        assert processes.scheduled()
        assert (os.environ["SLURM_PROCID"], os.environ["SLURM_LOCALID"]) == (str(i), str(i % 2))


def test_a_task_a_node_has_all_its_gpus(slurm):
    environment = {"SLURM_GPUS_ON_NODE": "8", "SLURM_TASKS_PER_NODE": "1(x2)", "SLURM_CPUS_PER_TASK": "16"}
    code, out, _ = run("slurm.sbatch", "--dry-run", *SMOKE, **environment, PYTHON="")
    assert code == 0
    assert out == [
        "export JAX_LOCAL_DEVICE_IDS=0,1,2,3,4,5,6,7",
        "export SRUN_CPUS_PER_TASK=16",
        "srun .venv/bin/python -m scalevae_jax.train --config configs/smoke.py",
    ]
    code, _, error = run("slurm.sbatch", "--dry-run", *SMOKE, **environment | {"SLURM_TASKS_PER_NODE": "4(x2)"})
    assert (code, error.split(" (")[0]) == (2, "error: 4 tasks for 8 GPUs of a node; one task a GPU, or one a node")
    code, _, error = run("slurm.sbatch", "--dry-run", *SMOKE, SLURM_GPUS_PER_TASK="1")
    assert (code, "use --gpus-per-node" in error) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["sigint", "sigterm"])
def test_a_signal_at_local_reaches_its_processes(number, stand_in):
    saves = stand_in("saves", "trap 'echo saved; kill $!; exit 143' TERM; echo begun; sleep 60 & wait")
    process = start("local.sh", "2", *SMOKE, PYTHON=str(saves), PORT="9")
    assert process.stdout is not None
    for _ in range(2):
        assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    out, error = process.communicate(timeout=20)
    assert out.count("saved") == 2, error


def test_out_of_time_the_tasks_are_told_to_save_and_the_job_is_queued_again(slurm, stand_in, tmp_path):
    saves = stand_in("saves", "trap 'echo saved; kill $!; exit 143' TERM; echo begun; sleep 60 & wait")
    process = start("slurm.sbatch", *SMOKE, PYTHON=str(saves))
    assert process.stdout is not None
    for _ in range(4):
        assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGUSR1)
    out, error = process.communicate(timeout=20)
    assert process.returncode == 0, error
    assert out.count("saved") == 4
    assert calls(tmp_path, "scancel") == [["--signal=TERM", "4097"]]
    assert calls(tmp_path, "scontrol") == [["requeue", "4097"]]


@pytest.mark.parametrize("code", [0, 2])
def test_a_job_that_ends_by_itself_is_not_queued_again(code, slurm, stand_in, tmp_path):
    assert run("slurm.sbatch", *SMOKE, PYTHON=str(stand_in("ends", f"exit {code}")))[0] == code
    assert calls(tmp_path, "scontrol") == []


JOBSETS = {
    item["metadata"]["labels"]["device"]: item
    for item in yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())["items"]
}


def _pods(jobset: dict) -> tuple[dict, dict, dict]:
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    return job, pod, container


@pytest.mark.parametrize("device", ["tpu", "gpu"])
def test_a_jobset_is_one_by_the_schema(device):
    """By the models of JobSet's and Kubernetes' OpenAPI: all fields are known and have the right types."""
    jobset = JOBSETS[device]
    assert JobsetV1alpha2JobSet.from_dict(jobset).to_dict() == jobset
    job, pod, container = _pods(jobset)
    spec = job["template"]["spec"]
    assert (jobset["apiVersion"], jobset["kind"], job["replicas"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet", 1)
    assert (spec["completions"], spec["completionMode"], spec["backoffLimit"]) == (spec["parallelism"], "Indexed", 0)
    assert pod["restartPolicy"] == "Never"
    assert [v["name"] for v in pod["volumes"]] == [v["name"] for v in container["volumeMounts"]]


@pytest.mark.parametrize("device", ["tpu", "gpu"])
def test_the_arguments_of_a_jobset_are_those_of_train(device):
    _, _, container = _pods(JOBSETS[device])
    train.parser().parse([argument.replace("$(JOB_COMPLETION_INDEX)", "1") for argument in container["args"]])


def test_the_jobsets_start_as_many_processes_as_their_arguments_say():
    """The slice has as many chips as its hosts; on GPUs the arguments fit the names of the pods."""
    job, pod, container = _pods(JOBSETS["tpu"])
    chips = 1
    for side in pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"):
        chips *= int(side)
    assert chips == container["resources"]["limits"]["google.com/tpu"] * job["template"]["spec"]["parallelism"]
    assert "--distributed" in container["args"]

    job, _, container = _pods(JOBSETS["gpu"])
    name = JOBSETS["gpu"]["metadata"]["name"]
    assert f"--coordinator={name}-{job['name']}-0-0.{name}:8476" in container["args"]
    assert f"--num_processes={job['template']['spec']['parallelism']}" in container["args"]
    assert "--process_id=$(JOB_COMPLETION_INDEX)" in container["args"]


def test_the_image_copies_files_that_exist():
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name


def test_every_command_of_the_readme_runs_dry(stand_in):
    """Those of the scripts; sbatch takes its own options away."""
    text = (LAUNCH / "README.md").read_text()
    shown = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    ours = [match for line in shown if (match := re.search(r"launch/(\w+\.(?:sh|sbatch)) (.*)", line))]
    assert {match[1] for match in ours} == {path.name for path in COMMANDS}
    for match in ours:
        code, _, error = run(match[1], "--dry-run", *shlex.split(match[2], comments=True), PYTHON=sys.executable)
        assert code == 0, f"{match[0]}: {error}"
