# SPDX-License-Identifier: Apache-2.0
"""A disk that takes nothing: filled by somebody else, remounted read-only, before the start and in the middle of a run.
crawlerd says so, pauses, and goes on by itself; every row is in the table once. Needs the right to mount."""

import subprocess
import time
from pathlib import Path

import pytest

from crawling import crawl  # noqa: F401


@pytest.fixture
def disk(crawl):  # noqa: F811
    """A file system of the crawler's own, of 64 MiB."""
    path = crawl.directory / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", path], capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    crawl.state = path / "state"
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=False)


def fill(disk):
    with open(disk / "filler", "wb", buffering=0) as f:
        try:
            while f.write(bytes(1 << 20)):
                pass
        except OSError:
            pass
    with open(disk / "filler", "ab", buffering=0) as f:
        try:
            while f.write(bytes(4096)):
                pass
        except OSError:
            pass


def remount(disk, how):
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


def said(crawl, words):  # noqa: F811
    return lambda: words in crawl.log.read_text(errors="replace")


def delivered(crawl, symbols):  # noqa: F811
    wanted = sum(len(crawl.expected(symbol)) for symbol in symbols)
    return lambda: len(crawl.cloud.rows()) >= wanted


def crawl_slowly(crawl, symbols):  # noqa: F811
    """A daemon that is up and has no reply yet."""
    crawl.cloud.fault({"service": "market"}, {"delay": 8}, times=1)
    process = crawl.daemon(symbols)
    crawl.wait_for(said(crawl, "going on without D-Bus"))
    return process


def ends_well(crawl, process, symbols):  # noqa: F811
    crawl.wait_for(delivered(crawl, symbols), 60)
    process.terminate()
    assert process.wait(20) == 0, crawl.tail()
    crawl.done = symbols
    crawl.check()


def test_a_disk_that_is_full_at_the_start_is_waited_for(crawl, disk):  # noqa: F811
    fill(disk)
    symbols = crawl.new_symbols(2)
    process = crawl.daemon(symbols)
    crawl.wait_for(said(crawl, "fetching pauses"))
    assert "free space on its file system" in crawl.tail()
    time.sleep(6)  # past a retry
    assert process.poll() is None, crawl.tail()
    assert crawl.log.read_text().count("fetching pauses") == 1, crawl.tail()  # said once
    assert not [r for r in crawl.cloud.requests() if r["service"] == "market"]
    (disk / "filler").unlink()
    ends_well(crawl, process, symbols)
    assert "can be written again" in crawl.log.read_text()


def test_a_spool_whose_disk_was_filled_while_it_was_away_is_waited_for(crawl, disk):  # noqa: F811
    first, second = crawl.new_symbols(1), crawl.new_symbols(1)
    crawl.finish(first)
    fill(disk)
    process = crawl.daemon(first + second)
    crawl.wait_for(said(crawl, "fetching pauses"))
    (disk / "filler").unlink()
    ends_well(crawl, process, first + second)


def test_a_read_only_disk_at_the_start_is_waited_for(crawl, disk):  # noqa: F811
    first, second = crawl.new_symbols(1), crawl.new_symbols(1)
    crawl.finish(first)
    remount(disk, "ro")
    process = crawl.daemon(first + second)
    crawl.wait_for(said(crawl, "fetching pauses"))
    remount(disk, "rw")
    ends_well(crawl, process, first + second)


def test_a_disk_that_fills_in_the_middle_of_a_run_pauses_fetching_and_is_recovered_from(crawl, disk):  # noqa: F811
    first = crawl.new_symbols(1)
    crawl.finish(first)
    symbols = first + crawl.new_symbols(4)
    process = crawl_slowly(crawl, symbols)
    fill(disk)
    crawl.wait_for(said(crawl, "fetching pauses"), 60)
    assert process.poll() is None, crawl.tail()
    (disk / "filler").unlink()
    ends_well(crawl, process, symbols)


@pytest.fixture
def faulty_disk(crawl):  # noqa: F811
    """An ext4 whose errors make it read-only, and a function that makes an error."""
    image, path = crawl.directory / "image", crawl.directory / "disk"
    path.mkdir()
    with open(image, "wb") as f:
        f.truncate(64 << 20)
    mount = ["mount", "-o", "loop,errors=remount-ro"]
    if (subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", image], capture_output=True).returncode
            or subprocess.run([*mount, image, path], capture_output=True).returncode):
        pytest.skip("no loop device, or no right to mount one")
    device = Path(subprocess.run(["findmnt", "-no", "SOURCE", path], check=True, capture_output=True,
                                 text=True).stdout.strip())
    trigger = Path("/sys/fs/ext4") / device.name / "trigger_fs_error"
    crawl.state = path / "state"

    def mend():
        # A copy: a machine of the rig that was made meanwhile may hold the broken one.
        subprocess.run(["umount", path], check=True)
        subprocess.run(["cp", image, f"{image}.mended"], check=True)
        assert subprocess.run(["e2fsck", "-fy", f"{image}.mended"], capture_output=True).returncode < 4
        subprocess.run([*mount, f"{image}.mended", path], check=True)
    try:
        if not trigger.exists():
            pytest.skip("this kernel has no trigger_fs_error")
        yield lambda: trigger.write_text("1"), mend
    finally:
        subprocess.run(["umount", "-l", path], check=False)


@pytest.mark.full  # a loop device, and a kernel that breaks a file system when told to, are not everywhere
def test_a_disk_that_turns_read_only_in_the_middle_of_a_run_loses_nothing(crawl, faulty_disk):  # noqa: F811
    """The kernel's own doing after an error: only the next mount ends it."""
    break_disk, mend_disk = faulty_disk
    first = crawl.new_symbols(1)
    crawl.finish(first)
    symbols = first + crawl.new_symbols(4)
    process = crawl_slowly(crawl, symbols)
    break_disk()
    crawl.wait_for(said(crawl, "fetching pauses"), 60)
    time.sleep(6)  # past a retry
    assert process.poll() is None, crawl.tail()
    assert crawl.log.read_text().count("fetching pauses") == 1, crawl.tail()  # said once
    process.terminate()
    process.wait(20)
    mend_disk()
    ends_well(crawl, crawl.daemon(symbols), symbols)
