"""Jobs that are forks of one process: as good as a start of their own, and gone with whoever waits for them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from holdfast.stage import alive, server, sharing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are shared under Linux only")

SNAKEMAKE = (
    "import sys; from holdfast.stage import alive; alive.guard(sys.argv[1]); print('up', flush=True); sys.stdin.read()"
)
# A package that takes long to import, and has something to say at the end.
HEAVY = """
import atexit, os, sys
PID = os.getpid()
with open({count!r}, "a") as file:
    file.write("once\\n")
atexit.register(lambda: print("end of heavy", file=sys.stderr))
"""
JOB = """
import json, os, signal, sys, threading, time
from pathlib import Path
from holdfast.stage import alive, sharing
alive.end_with_snakemake()
why = sharing.hand_over(["hidden"], {preload})
fork = sharing.forked()
parent = os.getppid()
process = dict(pid=os.getpid(), server=int(Path(f"/proc/{{parent}}/stat").read_text().rpartition(")")[2].split()[1]))
Path("said.json").write_text(json.dumps(dict(process, fork=fork is not None, why=why)))
{body}
"""
# A package that takes processes away, from whom the file `full` names.
FULL = """
import os
once, server = os.fork, os.getpid()
def fork():
    try:
        full = open("full").read()
    except FileNotFoundError:
        full = ""
    if full == ("the server" if os.getpid() == server else "who attends"):
        raise OSError(12, "Cannot allocate memory")
    return once()
os.fork = fork
"""
STAGE = """
import sys, time
from types import SimpleNamespace
from holdfast.stage import job
job.MODELS = {models}
class Params(dict):
    pass
fake = SimpleNamespace(threads=1, log=["log"], input=[], output=[], wildcards={{}}, resources={{}},
                       params=Params(imports={imports}))
if job.sharing.forked() is None:
    time.sleep(1)
io = job.start(fake, {hide}, ["heavy"], ["heavy"])
io.log(f"fork {{job.sharing.forked() is not None}}, scipy {{sys.modules.get('scipy', 'as it is')}}")
"""
UNUSED = "job.UNUSED_BY_MODELS"


class Run:
    """A Snakemake that does nothing, and the jobs that it might start."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, folder / "count"
        (folder / "heavy.py").write_text(HEAVY.format(count=str(self.count)))
        env = {k: v for k, v in os.environ.items() if k != alive.VARIABLE}
        command = [sys.executable, "-c", SNAKEMAKE, str(folder / "state")]
        self.snakemake = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        assert self.snakemake.stdout.readline() == "up\n"
        place = folder / "state" / f"alive-{alive._host()}-{self.snakemake.pid}"
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        own = {alive.VARIABLE: str(place), sharing.VARIABLE: "secret", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        self.env = env | own

    def begin(self, text: str, before=None, **variables: str) -> subprocess.Popen:
        script = self.folder / "job.py"
        script.write_text(text)
        (self.folder / "said.json").unlink(missing_ok=True)
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, script], cwd=self.folder, env=self.env | variables, stdin=pipe,
                                stdout=pipe, stderr=pipe, text=True, start_new_session=True,
                                preexec_fn=before)  # fmt: skip

    def job(self, body: str = "", preload=("heavy",), **variables) -> subprocess.Popen:
        return self.begin(JOB.format(body=body, preload=list(preload)), **variables)

    def said(self, body: str = "", preload=("heavy",), code: int = 0, **variables: str) -> dict:
        job = self.job(body, preload, **variables)
        out, err = job.communicate("", timeout=60)
        assert job.returncode == code, err
        return self.seen() | {"out": out, "err": err}

    def seen(self) -> dict:
        wait_for((self.folder / "said.json").exists)
        time.sleep(0.1)
        return json.loads((self.folder / "said.json").read_text())

    def stage(self, hide: str = "()", models=(), imports=()) -> str:
        job = self.begin(STAGE.format(hide=hide, models=list(models), imports=list(imports)))
        job.communicate("", timeout=60)
        assert job.returncode == 0
        return (self.folder / "log").read_text()


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path)
    yield run
    run.snakemake.kill()
    run.snakemake.wait()


def wait_for(true, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether a process has ended; init may not have collected it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_jobs_are_forks_of_a_process_that_has_imported_once(run):
    found = [run.said("import heavy; print(heavy.PID)") for _ in range(3)]
    assert all(f["fork"] and f["why"] is None for f in found)
    assert {f["out"] for f in found} == {f"{found[0]['server']}\n"} and len({f["pid"] for f in found}) == 3
    assert run.count.read_text() == "once\n"


def test_a_fork_has_the_streams_the_folder_and_the_names_of_a_start(run):
    body = (
        "print(sys.stdin.read(), os.getcwd(), sys.argv, __name__, __file__, os.environ['MINE'])\n"
        "print('wrong', file=sys.stderr)\nsubprocess = __import__('subprocess')\n"
        "print(subprocess.run(['false']).returncode, len(os.listdir('/proc/self/fd')), signal.getsignal(signal.SIGINT))"
    )
    outs = []
    for variables in ({}, {"OMP_NUM_THREADS": "2"}):
        job = run.job(body, MINE="x", **variables)
        out, err = job.communicate("typed", timeout=60)
        assert run.seen()["fork"] != bool(variables) and err.startswith("wrong\n")
        outs.append(out)
    assert outs[0] == outs[1] and outs[0].startswith(f"typed {run.folder} ['{run.folder}/job.py'] __main__ ")


@pytest.mark.parametrize(
    ("body", "code"),
    [("sys.exit(3)", 3), ("1 / 0", 1), ("os._exit(2)", 2), ("os.kill(os.getpid(), 9)", -9), ("os.abort()", -6)],
)
def test_how_it_ends_is_passed_on(run, body, code):
    said = run.said(body, code=code)
    assert said["fork"] and ("ZeroDivisionError" in said["err"]) == (code == 1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_job_ends_with_the_script_that_waits_for_it(run, how):
    job = run.job("time.sleep(60)")
    found = run.seen()
    job.send_signal(how)
    job.wait(timeout=10)
    wait_for(lambda: gone(found["pid"]), 10)
    assert not gone(found["server"]) and run.said()["server"] == found["server"]


def test_a_keyboard_ends_both_and_lets_the_job_clean_up(run):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests of a background job have it ignored
    job = run.job("try:\n    time.sleep(60)\nfinally:\n    Path('clean').touch()")
    signal.signal(signal.SIGINT, before)
    found = run.seen()
    os.killpg(job.pid, signal.SIGINT)
    assert job.wait(timeout=10) != 0 and (run.folder / "clean").exists() and "KeyboardInterrupt" in job.stderr.read()
    assert gone(found["pid"]) and not gone(found["server"])


def test_a_keyboard_that_does_not_reach_snakemake_does_not_reach_a_job(run):
    """A shell script that starts Snakemake with `&` has it ignore Ctrl-C, and all that it starts."""
    ask = "os.kill(os.getpid(), signal.SIGINT)\nprint(fork is not None, signal.getsignal(signal.SIGINT))"
    outs = []
    for variables in ({}, {"OMP_NUM_THREADS": "2"}):
        job = run.job(ask, before=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN), **variables)
        outs.append(job.communicate("", timeout=60)[0])
    assert outs == ["True 1\n", "False 1\n"]  # SIG_IGN


def test_all_of_it_ends_with_snakemake(run):
    job = run.job("time.sleep(60)")
    found = run.seen()
    run.snakemake.kill()
    assert job.wait(timeout=10) == 1
    wait_for(lambda: gone(found["pid"]) and gone(found["server"]), 10)


def test_jobs_end_with_the_server_and_the_next_start_another(run):
    job = run.job("time.sleep(0.5) if fork else print('alone')")
    found = run.seen()
    os.kill(found["server"], signal.SIGKILL)
    out, _ = job.communicate(timeout=60)
    assert gone(found["pid"]) and job.returncode == 0 and out == "alone\n"
    assert run.said()["server"] != found["server"]


def test_another_environment_is_another_process(run):
    one, two, again = (run.said(OMP_DYNAMIC=v, SHLVL=s) for v, s in (("a", "1"), ("b", "1"), ("a", "2")))
    assert one["server"] == again["server"] != two["server"]


def test_code_that_changed_meanwhile_is_seen(run):
    for value in (1, 22):
        (run.folder / "mine.py").write_text(f"VALUE = {value}\n")
        assert run.said("import mine; print(mine.VALUE)")["out"] == f"{value}\n"


def test_a_process_with_threads_is_not_forked(run):
    (run.folder / "busy.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
    )
    for _ in range(2):
        said = run.said(preload=["busy", "heavy"])
        assert not said["fork"] and said["why"] == "2 threads run where one should"
    assert run.count.read_text() == "once\n"


def test_a_job_starts_anew_where_the_server_dies_and_says_so(run):
    (run.folder / "deadly.py").write_text("import os\nos._exit(7)\n")
    said = run.said("print('done')", preload=["deadly"])
    assert not said["fork"] and said["why"] and said["out"] == "done\n"


def test_where_no_process_can_be_made_one_job_starts_anew_and_the_others_go_on(run):
    (run.folder / "full.py").write_text(FULL)
    job = run.job("print(sys.stdin.readline())", preload=["full"])
    first = run.seen()
    for which in ("the server", "who attends"):
        (run.folder / "full").write_text(which)
        said = run.said(preload=["full"])
        assert not said["fork"] and said["why"] == "[Errno 12] Cannot allocate memory", which
    (run.folder / "full").unlink()
    assert run.said(preload=["full"])["server"] == first["server"]
    assert job.communicate("goes on")[0] == "goes on\n" and job.returncode == 0


def test_where_no_name_may_be_taken_nobody_waits_for_it(run):
    (run.folder / "sitecustomize.py").write_text(
        "import socket\nclass Socket(socket.socket):\n    def bind(self, name):\n"
        "        raise PermissionError(13, 'no')\nsocket.socket = Socket\n"
    )
    began = time.monotonic()
    said = run.said("print('done')")
    assert not said["fork"] and said["why"] and said["out"] == "done\n"
    assert time.monotonic() - began < sharing._SECONDS / 2


def test_what_is_not_installed_stops_nothing(run):
    assert run.said(preload=["absent", "heavy"])["fork"]


def test_somebody_else_gets_nothing(run):
    found = run.said()
    command = Path(f"/proc/{found['server']}/cmdline").read_bytes().split(b"\0")
    name = next(json.loads(word)["name"] for word in command if word.startswith(b"{"))
    asked = {"folder": "/", "path": [], "script": str(run.folder / "job.py")}
    for secret in ({}, {"secret": "guessed"}):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as mine:
            mine.connect(f"\0{name}")
            socket.send_fds(mine, [json.dumps(asked | secret).encode()], [0, 1, 2])
            assert mine.recv(1000) == b""
    assert run.said()["server"] == found["server"]


def test_peak_memory_does_not_begin_with_that_of_the_server(run):
    (run.folder / "fat.py").write_text("x = b'1' * (400 << 20)\ndel x\n")
    ask = "from holdfast.record import provenance; print(provenance.peak_resident())"
    assert int(run.said(ask, preload=["fat"])["out"]) < 200 << 20


@pytest.mark.parametrize(
    "variables",
    [{"OMP_NUM_THREADS": "2"}, {"CUDA_VISIBLE_DEVICES": "0"}, {alive.VARIABLE: "/x/alive-elsewhere-1"}],
    ids=lambda v: next(iter(v)),
)
def test_what_does_not_share(run, variables):
    said = run.said(**variables)
    assert not said["fork"] and said["why"] is None


def test_nothing_is_shared_where_the_snakefile_does_not_offer_it(run):
    del run.env[sharing.VARIABLE]
    assert not run.said()["fork"]


def test_the_program_imports_nothing_of_holdfast():
    assert "holdfast." not in re.sub(r'"""(?s:.)*?"""', "", Path(server.__file__).read_text())


def test_a_stage_says_the_last_word_and_hides_what_it_does_not_use(run):
    lines = run.stage(UNUSED).splitlines()
    assert lines[:2] == ["fork True, scipy None", "end of heavy"]
    last = re.fullmatch(r"worked ([\d.]+) s, after ([\d.]+) s to start, in ([\d.]+) GB of memory", lines[2])
    worked, began, memory = map(float, last.groups())
    assert 0 < memory < 2 and worked < 10 and began > 1  # of the script that waits, not of the fork


def test_a_stage_that_hides_nothing_finds_all_that_is_installed(run):
    assert "fork True, scipy as it is" in run.stage()


def test_models_are_not_shared_where_they_must_see_what_others_do_not(run):
    for hide, imports in (("()", ()), (UNUSED, ("bitsandbytes",))):
        assert run.stage(hide, ["heavy"], imports).startswith("fork False")
