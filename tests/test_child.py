"""Calls in guarded child processes, which may die."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tests.guarded import (
    Refusal,
    child,
    count,
    damage,
    die,
    fail,
    garbage,
    hang,
    hang_without_python,
    leak,
    leave,
    several,
    square,
    take,
    talk,
)

from medst.child import ChildError, GuardedProcess, pack, unpack
from medst.errors import MedstError


@pytest.fixture
def guard() -> Iterator[GuardedProcess]:
    with GuardedProcess(seconds=60, refused=(Refusal, OSError)) as process:
        yield process


def test_a_child_is_reused_and_not_in_the_terminals_group(guard: GuardedProcess) -> None:
    first, group, _ = guard(child)
    again, _, calls = guard(child)
    assert first == again != os.getpid()
    assert calls == 2
    assert group != os.getpgid(0)  # Ctrl-C goes to a terminal's foreground group


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_crash_costs_one_call_and_is_named(guard: GuardedProcess, number: signal.Signals) -> None:
    first, *_ = guard(child)
    with pytest.raises(ChildError, match=rf"its decoder crashed \({number.name}\)"):
        guard(die, number)
    assert guard(child)[0] != first


def test_an_end_without_a_signal_is_a_crash_too(guard: GuardedProcess) -> None:
    with pytest.raises(ChildError, match=r"its decoder crashed \(exit code 7\)"):
        guard(leave, 7)
    assert guard(child)[2] == 1


def test_a_child_killed_by_the_system_is_reported(guard: GuardedProcess) -> None:
    with pytest.raises(ChildError, match="most likely because memory ran out"):
        guard(die, signal.SIGKILL)


def test_a_child_damaged_by_a_call_does_not_fail_the_next_one(guard: GuardedProcess) -> None:
    first, *_ = guard(child)
    guard(damage)
    assert guard(child)[0] != first


def test_a_call_is_repeated_once_in_a_new_child_and_only_if_the_old_one_was_used(
    guard: GuardedProcess, tmp_path: Path
) -> None:
    fresh, used = tmp_path / "fresh", tmp_path / "used"
    with pytest.raises(ChildError):
        guard(count, fresh)
    assert len(fresh.read_text()) == 1
    guard(child)
    with pytest.raises(ChildError):
        guard(count, used)
    assert len(used.read_text()) == 2


@pytest.mark.parametrize("function", [hang, hang_without_python])
def test_a_hanging_call_ends_after_its_time_limit(function: Callable[[], None]) -> None:
    with GuardedProcess() as guard:
        first, *_ = guard(child)
        guard.seconds = 0.5
        with pytest.raises(ChildError, match=r"takes longer than 0\.5 seconds"):
            guard(function)
        guard.seconds = 60
        assert guard(child)[0] != first


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited on Linux only")
def test_memory_is_limited_for_each_call() -> None:
    with GuardedProcess(memory=2**28) as guard:
        assert [guard(take, 2**27) for _ in range(3)] == [2**27] * 3
        first, *_ = guard(child)
        with pytest.raises(ChildError, match="takes more memory than a file may"):
            guard(take, 2**29)
        assert guard(take, 2**27) == 2**27
        assert guard(child)[0] != first


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited on Linux only")
def test_a_leaking_child_is_replaced_before_calls_fail() -> None:
    with GuardedProcess(memory=2**28) as guard:
        found = [guard(leak, 2**26) for _ in range(10)]
    assert 2 <= len({process for process, _ in found}) <= 5
    assert max(leaks for _, leaks in found) < 6


def test_listed_exceptions_are_raised_and_of_others_only_the_name_is_given(guard: GuardedProcess) -> None:
    for kind, expected in (("refusal", Refusal), ("medst", MedstError), ("disk", OSError)):
        with pytest.raises(expected, match="SECRET") as caught:
            guard(fail, kind)
        assert type(caught.value) is expected
    with pytest.raises(ChildError, match="Unforeseen") as unforeseen:
        guard(fail, "unforeseen")
    assert "SECRET" not in str(unforeseen.value)
    assert guard(child)[2] == 1


def test_output_and_input_of_a_decoder_do_not_mix_with_messages(guard: GuardedProcess) -> None:
    assert guard(talk) == ["", ""]
    assert guard(child)[2] == 1


def test_answers_are_arrays_and_plain_values(guard: GuardedProcess) -> None:
    array, size, text = guard(several)
    np.testing.assert_array_equal(array, several()[0])
    assert array.flags.writeable
    assert (size, text) == ([2, 3], "text")


@given(
    st.lists(
        arrays.arrays(st.sampled_from(["u1", "<u2", "<f4", "<f8", "<i8"]), arrays.array_shapes(min_dims=0, min_side=0))
    ),
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5),
)
@settings(deadline=None, max_examples=50)
def test_packing_and_unpacking_are_inverse(some: list[np.ndarray], plain: Any) -> None:
    kind, (found, same) = unpack(pack("value", [some, plain]))
    assert kind == "value"
    assert same == plain
    assert [array.dtype for array in found] == [array.dtype for array in some]
    for array, expected in zip(found, some, strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("seed", range(3))
def test_a_malformed_answer_counts_as_a_crash(guard: GuardedProcess, seed: int) -> None:
    with pytest.raises(ChildError):
        guard(garbage, seed)
    assert guard(child)[2] == 1


def test_a_pickled_guard_has_its_own_child(guard: GuardedProcess) -> None:
    first, *_ = guard(child)
    with pickle.loads(pickle.dumps(guard)) as other:
        assert other(child)[0] != first
        with pytest.raises(Refusal):
            other(fail, "refusal")
    assert guard(child)[0] == first


def test_after_an_interrupt_no_late_answer_reaches_the_next_call(guard: GuardedProcess) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    first, *_ = guard(child)
    usual = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(KeyboardInterrupt):
            guard(hang)
    finally:
        signal.signal(signal.SIGUSR1, usual)
    assert guard(child)[0] != first


def test_a_child_ends_with_its_parent_even_if_that_is_killed() -> None:
    script = "import time; from medst.child import GuardedProcess as G; from tests.guarded import child; g = G(); "
    script += "print(g(child)[0], flush=True); time.sleep(600)"
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    process = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(1000):
        if has_ended(process):
            break
        time.sleep(0.05)
    assert has_ended(process)


def has_ended(process: int) -> bool:
    """Whether the process is gone, or a zombie."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def test_threads_take_turns(guard: GuardedProcess) -> None:
    found = joblib.Parallel(4, backend="threading")(joblib.delayed(guard)(square, n) for n in range(50))
    assert found == [n * n for n in range(50)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # on account of pytest's other threads
def test_a_fork_starts_its_own_child(guard: GuardedProcess) -> None:
    first, *_ = guard(child)
    reader, writer = os.pipe()
    if (process := os.fork()) == 0:
        code = 1
        try:
            os.write(writer, str(guard(child)[0]).encode())
            guard.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(process, 0)[1] == 0
    assert int(os.read(reader, 20)) != first
    assert guard(child)[0] == first


def test_a_child_that_does_not_start_is_not_blamed_on_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    with GuardedProcess() as guard:
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(MedstError, match="ended before its first call"):
            guard(child)
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(MedstError, match="can't be started"):
            guard(child)


def test_a_function_that_the_child_cannot_import_is_not_blamed_on_the_file(
    guard: GuardedProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(square, "__module__", "nowhere")
    monkeypatch.setitem(sys.modules, "nowhere", sys.modules["tests.guarded"])
    with pytest.raises(MedstError, match="can't run square"):
        guard(square, 2)
