"""Processes of their own: how much memory one holds, and several that train side by side."""

import json
import os
import subprocess
import sys
import time

import pytest

from birthplace_lm.benchmarks import memory, side_by_side
from birthplace_lm.benchmarks.own_process import EndedError, at_once, by_turns

MEBIBYTE = 2**20


def alone(code: str) -> dict[str, int]:
    """What a program prints as JSON that imports nothing but `memory`."""
    done = subprocess.run(
        [sys.executable, "-c", f"import json\nfrom birthplace_lm.benchmarks import memory\n{code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_the_peak_stays_when_the_memory_is_given_back() -> None:
    found = alone(
        f"before = memory.held(); block = bytearray(b'1') * {200 * MEBIBYTE}; full = memory.held(); del block\n"
        "print(json.dumps({'before': before, 'full': full, 'after': memory.held(), 'peak': memory.peak()}))"
    )
    assert found["full"] - found["before"] == pytest.approx(200 * MEBIBYTE, rel=0.05)
    assert found["peak"] >= found["full"] - MEBIBYTE and found["after"] < found["before"] + 20 * MEBIBYTE


@pytest.mark.skipif(not memory._STATUS.is_file(), reason="only Linux tells a program's own high-water mark")
def test_the_peak_is_not_that_of_the_process_which_started_it() -> None:
    block = bytearray(b"1") * (200 * MEBIBYTE)
    found = alone("print(json.dumps({'peak': memory.peak()}))")
    assert found["peak"] < 200 * MEBIBYTE < len(block) + 1


# Says that it is ready, waits for its line, and reports its threads and when it was let go.
JOB = """
import json, sys, time
threads = int(sys.argv[sys.argv.index("--threads") + 1])
print("a word of a library"); print("ready", flush=True); sys.stdin.readline(); begin = time.time()
print(json.dumps({"characters": 100 * threads, "seconds": 2.0, "begin": begin}))
"""


def test_all_begin_when_the_last_is_ready() -> None:
    late = JOB.replace('print("a word', 'time.sleep(0.5); print("a word')
    started = time.time()
    reports = at_once([[sys.executable, "-c", code, "--threads", "1"] for code in (JOB, late)], threads=1)
    assert all(report["begin"] - started >= 0.5 for report in reports)


def test_jobs_side_by_side_are_added_up() -> None:
    figures = side_by_side.compare([sys.executable, "-c", JOB], threads=3, repetitions=1)
    assert figures["ways"] == [
        {"name": "3 jobs, 1 thread each", "characters_per_second": 150.0},
        {"name": "1 job, 3 threads", "characters_per_second": 150.0},
    ]
    assert figures["ratio"] == 1.0 and "3 jobs, 1 thread each" in side_by_side.text(figures)


def test_the_number_of_threads_reaches_the_process() -> None:
    code = (
        "import json, os; print('ready', flush=True); input(); print(json.dumps({'n': os.environ['OMP_NUM_THREADS']}))"
    )
    assert at_once([[sys.executable, "-c", code]], threads=3) == [{"n": "3"}]


# Answers every line that it is given: how many it has had, and when it had it.
PATIENT = """
import json, sys, time
print("ready", flush=True)
for turn, _ in enumerate(sys.stdin):
    print("a word of a library")
    print(json.dumps({"turn": turn, "name": sys.argv[1], "begin": time.time()}), flush=True)
    time.sleep(0.2)
"""


def test_by_turns_one_is_let_go_at_a_time_and_as_often_as_one_likes() -> None:
    with by_turns({name: [sys.executable, "-c", PATIENT, name] for name in "ab"}, threads=1) as turns:
        found = [turns[name]() for name in "abba"]
    assert [(each["name"], each["turn"]) for each in found] == [("a", 0), ("b", 0), ("b", 1), ("a", 1)]
    assert found[2]["begin"] - found[1]["begin"] >= 0.19  # not before it was through with the turn before


def test_what_goes_by_turns_is_ended_with_the_block() -> None:
    whoami = PATIENT.replace('"name": sys.argv[1]', '"pid": __import__("os").getpid()')
    with pytest.raises(ZeroDivisionError), by_turns({"a": [sys.executable, "-c", whoami]}, threads=1) as turns:
        process = turns["a"]()["pid"]
        raise ZeroDivisionError
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_one_thread_is_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="with 1 thread: --threads is at least 2"):
        side_by_side.compare(["true"], threads=1, repetitions=1)


@pytest.mark.parametrize(
    ("code", "told"),
    [("raise SystemExit(3)", "status 3 before it was ready"), ("print('ready'); raise SystemExit(4)", "status 4$")],
)
def test_one_that_fails_is_told_and_the_others_are_ended(code: str, told: str) -> None:
    waiting = "import time; time.sleep(0.5); print('ready', flush=True); input(); time.sleep(60)"
    begin = time.monotonic()
    with pytest.raises(EndedError, match=told):
        at_once([[sys.executable, "-c", code], [sys.executable, "-c", waiting]], threads=1)
    assert time.monotonic() - begin < 30
