"""Who holds the lock of a folder, who waits for it, who is refused; the dead hold nothing."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import locks
from errors import UserError
from locks import in_turn, lock_file, only_writer

HERE = Path(__file__).parents[1]
LOCKED = "import sys; from pathlib import Path; from locks import *\nwith {kind}(Path({folder!r}), 'out='):\n {then}"


def process(folder: Path, then: str, kind: str = "only_writer", argument: str = "") -> subprocess.Popen[str]:
    """A process that does something with the lock in its hands."""
    code = LOCKED.format(kind=kind, folder=str(folder), then=then)
    command = [sys.executable, "-c", code, argument]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=HERE, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


@contextmanager
def held(folder: Path, then: str = "print('held', flush=True); input()") -> Iterator[subprocess.Popen[str]]:
    """A process that holds a folder's lock until it is killed."""
    with process(folder, then) as running:
        assert running.stdout and running.stdout.readline() == "held\n"
        yield running
        running.kill()


def test_who_comes_second_is_refused_and_the_dead_hold_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with held(folder) as first:
        begun = time.monotonic()
        with pytest.raises(UserError) as refused, only_writer(folder, "name=", patience=0.3):
            pass
        assert 0.3 <= time.monotonic() - begun < 3
    words = f"{folder} is being written by process {first.pid} on {os.uname().nodename} since {time.strftime('%Y-')}"
    assert str(refused.value).startswith(words) and "choose another name=." in str(refused.value)
    assert lock_file(folder).exists(), "it was killed"
    with only_writer(folder, "name=", patience=0):
        assert f"process {os.getpid()} on " in lock_file(folder).read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_successor_waits_for_the_killed_to_end(tmp_path: Path) -> None:
    with (
        held(tmp_path / "run", "print('held', flush=True); import time; time.sleep(0.4)"),
        only_writer(tmp_path / "run", "name="),
    ):
        pass


def test_who_waits_says_for_whom(tmp_path: Path) -> None:
    with held(tmp_path / "store") as first:
        second = process(tmp_path / "store", "print('mine')", "in_turn")
        assert second.stderr and second.stderr.readline().startswith(
            f"waiting for process {first.pid} on {os.uname().nodename} since"
        )
        assert second.poll() is None
    assert second.communicate()[0] == "mine\n" and second.returncode == 0


def test_what_the_holder_forked_does_not_hold_it(tmp_path: Path) -> None:
    """Workers of a data loader, and services, may outlive who started them."""
    child = "import os, time; child = os.fork()\n if child == 0: time.sleep(60)\n print('held', child, flush=True); input()"
    running = process(tmp_path / "run", child)
    assert running.stdout
    pid = int(running.stdout.readline().split()[1])
    running.kill()
    running.wait()
    try:
        os.kill(pid, 0)
        with only_writer(tmp_path / "run", "name=", patience=0.5):
            pass
    finally:
        os.kill(pid, signal.SIGKILL)
        running.communicate()


def test_a_fork_may_not_take_or_release_it(tmp_path: Path) -> None:
    fork = "child = os.fork()\n if child: print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), lock_file(Path(sys.argv[1])).exists())"
    code = f"import os\n {fork}\n else: only_writer(Path(sys.argv[1]), 'out=', 0).__enter__()"
    done = process(tmp_path / "out", code, argument=str(tmp_path / "out")).communicate()
    assert done[0] == "1 True\n" and "is being written by process" in done[1], done


def test_one_process_may_hold_it_several_times_over(tmp_path: Path) -> None:
    with only_writer(tmp_path / "out", "out="):
        with only_writer(tmp_path / "." / "out", "out="), in_turn(tmp_path / "out", "out="):
            pass
        assert lock_file(tmp_path / "out").exists()
    assert not lock_file(tmp_path / "out").exists()


def test_a_folder_by_another_name_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    assert lock_file(tmp_path / "link") == lock_file(tmp_path / "out") == tmp_path / ".out.lock"


def test_a_disk_of_its_own_has_its_lock_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside it is another disk, perhaps another one on every machine that writes it."""
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "out")
    assert lock_file(tmp_path / "out") == tmp_path / "out" / ".out.lock"
    monkeypatch.undo()
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)
    assert lock_file(tmp_path / "out") == tmp_path / "out" / ".out.lock"


def test_of_many_at_the_same_moment_one_at_a_time_goes_in(tmp_path: Path) -> None:
    """Whose lock file another one has just removed begins again."""
    (tmp_path / "count").write_text("0")
    code = """
import sys
import locks
from pathlib import Path
locks.EVERY, locks._say, count = 0, print, Path(sys.argv[1])
for _ in range(60):
    with locks.in_turn(count.with_name("out"), "out="):
        count.write_text(str(int(count.read_text()) + 1))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "count")]
    running = [subprocess.Popen(command, cwd=HERE, stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [one.wait() for one in running] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "180" and not lock_file(tmp_path / "out").exists()


def raises(number: int) -> Callable[..., None]:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", locks.NO_LOCKS)
def test_a_file_system_without_locks_is_said_once(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    locks._say.cache_clear()
    monkeypatch.setattr(fcntl, "flock", raises(number))
    for _ in range(2):
        with only_writer(tmp_path / "run", "name="):
            pass
    assert capsys.readouterr().err.count("is on a file system without locks: do not start two programs that write") == 1
    monkeypatch.setattr(fcntl, "flock", raises(errno.EIO))
    with pytest.raises(OSError, match="Input/output"), only_writer(tmp_path / "run", "name="):
        pass


def test_where_no_lock_can_be_written_a_sentence_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder, what in ((tmp_path / "file" / "run", tmp_path / "file"), (tmp_path / ("x" * 300), tmp_path)):
        with (
            pytest.raises(UserError, match=rf"{what}\S* cannot be written \(File.*choose another name="),
            only_writer(folder, "name="),
        ):
            pass
