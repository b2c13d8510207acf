"""Several GPUs on one machine: every job has its own, and one that dies gives it back."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from holdfast.stage import devices

ASK = (
    "import sys, time\nfrom holdfast.stage import devices\n"
    "found = devices.claim(int(sys.argv[1]), lambda text: print(text, flush=True))\n"
    "import os\nprint('has', *found, os.environ.get(devices.VARIABLE), flush=True)\ntime.sleep(float(sys.argv[2]))\n"
)


@pytest.fixture
def job(tmp_path):
    """Starts a process that claims so many of these devices and lives so long."""
    started = []

    def start(wanted, seconds, seen="0,1,2,3"):
        env = os.environ | {devices.VARIABLE: seen, "TMPDIR": str(tmp_path)}
        command = [sys.executable, "-c", ASK, str(wanted), str(seconds)]
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def has(process):
    for line in process.stdout:
        if line.startswith("has"):
            *mine, variable = line.split()[1:]
            assert variable == ",".join(mine)
            return set(mine)
    raise AssertionError("ended without a device")


def test_jobs_beside_each_other_have_different_devices(job):
    held = [has(job(1, 60)) for _ in range(4)]
    assert set.union(*held) == {"0", "1", "2", "3"} and all(len(h) == 1 for h in held)


def test_a_job_waits_until_one_is_free_and_a_killed_one_gives_its_own_back(job):
    jobs = [job(1, 60) for _ in range(4)]
    held = [has(j) for j in jobs]
    late = job(1, 60)
    assert late.stdout.readline() == "waiting for 1 of 4 GPUs, which other jobs hold\n"
    jobs[2].kill()
    assert has(late) == held[2]


def test_who_wants_several_waits_for_all_and_holds_none_meanwhile(job):
    first = job(3, 20)
    assert len(has(first)) == 3
    two = job(2, 60)
    assert "waiting for 2 of 4" in two.stdout.readline()
    time.sleep(1)
    one = has(job(1, 60))  # the one that is left is not held by who waits for two
    assert len(one) == 1 and first.poll() is None
    first.kill()
    assert len(has(two)) == 2


@pytest.mark.parametrize(("said", "seen"), [
    ("0,1", ["0", "1"]), ("GPU-8f2a,GPU-77", ["GPU-8f2a", "GPU-77"]), ("2, 3 ", ["2", "3"]), ("", []), ("-1", []),
    ("0,-1,1", ["0"]), ("MIG-1/2/0", ["MIG-1/2/0"]),
])  # fmt: skip
def test_what_the_environment_lets_see(monkeypatch, said, seen):
    monkeypatch.setenv(devices.VARIABLE, said)
    assert devices.visible() == seen


def test_without_a_word_all_cards_are_seen_and_without_a_card_none(monkeypatch, tmp_path):
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    monkeypatch.setattr(devices, "CARDS", tmp_path / "none")
    assert devices.visible() == []
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    monkeypatch.setattr(devices, "CARDS", tmp_path / "gpus")
    assert devices.visible() == ["0", "1"]


@pytest.mark.parametrize(("said", "wanted"), [("3", 1), ("0,1", 2), ("0,1,2,3", 0), ("", 1)])
def test_what_a_scheduler_gave_is_taken_as_it_is(monkeypatch, tmp_path, said, wanted):
    monkeypatch.setenv(devices.VARIABLE, said)
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    devices.claim(wanted, lambda text: pytest.fail(text))
    assert os.environ[devices.VARIABLE] == said and not list(tmp_path.iterdir())
