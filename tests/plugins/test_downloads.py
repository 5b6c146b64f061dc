"""Downloads are resumable, verified, locked and atomic; archives are unpacked completely, within their folder."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile

import pytest
from hashzoo_plugins.datasets import archives, download, progress
from hashzoo_plugins.datasets.download import Check, Remote, fetch
from hashzoo_plugins.datasets.unpack import unpack
from rich.console import Console

from hashzoo.errors import EnvironmentFailure, UsageError
from tests.plugins.web import Served, Site

DATA = hashlib.shake_128(b"data").digest(300_000)
SHA = hashlib.sha256(DATA).hexdigest()
MD5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()


@pytest.fixture(autouse=True)
def _quick_and_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HASHZOO_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("HASHZOO_MIRROR", raising=False)


@pytest.fixture
def site():
    with Served(Site({"/a.bin": DATA})) as served:
        yield served


def clean(target):
    return sorted(p.name for p in target.parent.iterdir()) == sorted([target.name, f"{target.name}.lock"])


@pytest.mark.parametrize("sums", [{"sha256": SHA}, {"md5": MD5}, {"size": len(DATA)}, {"md5": MD5.upper()}, {}])
def test_a_file_is_downloaded_once_and_nothing_else_is_left(site, tmp_path, sums):
    target = tmp_path / "deep" / "a.bin"
    for _ in range(2):
        assert fetch(f"{site.url}/a.bin", target, **sums).read_bytes() == DATA
    assert site.asked == [("/a.bin", None)]
    assert clean(target)


@pytest.mark.parametrize("tags", [True, False])
@pytest.mark.parametrize("cut", [0, 1, 1000, 131_072, 299_999])
def test_an_interrupted_download_resumes_where_it_stopped(site, tmp_path, cut, tags):
    site.cut, site.tags = [cut], tags
    target = tmp_path / "t" / "a.bin"
    assert fetch(f"{site.url}/a.bin", target, sha256=SHA).read_bytes() == DATA
    assert site.sent["/a.bin"] == len(DATA)  # no byte twice
    assert clean(target)


def test_a_download_that_is_interrupted_many_times_completes(site, tmp_path):
    site.cut = [40_000] * 7
    assert fetch(f"{site.url}/a.bin", tmp_path / "a.bin", sha256=SHA).read_bytes() == DATA
    assert [span for _, span in site.asked[1:]] == [f"bytes={n * 40_000}-" for n in range(1, 8)]
    assert site.sent["/a.bin"] == len(DATA)


def test_another_run_resumes_from_the_part(site, tmp_path):
    site.cut, site.fail = [123_456], []
    target = tmp_path / "a.bin"
    dies = Site({"/a.bin": DATA}, cut=[123_456, 0, 0, 0])
    with (
        Served(dies),
        pytest.raises(EnvironmentFailure, match=r"broke off at byte 123456 of 300000 \(123456 bytes are kept"),
    ):
        fetch(f"{dies.url}/a.bin", target, sha256=SHA)
    assert not target.exists()
    site.cut = []
    assert fetch(f"{site.url}/a.bin", target, sha256=SHA).read_bytes() == DATA
    assert site.sent["/a.bin"] == len(DATA) - 123_456


@pytest.mark.parametrize("sums", [{"sha256": SHA}, {}])
def test_a_server_without_ranges_sends_the_whole_file_again(site, tmp_path, sums):
    site.ranges, site.cut = False, [1000]
    assert fetch(f"{site.url}/a.bin", tmp_path / "a.bin", **sums).read_bytes() == DATA
    assert site.sent["/a.bin"] == len(DATA) + 1000


def test_without_a_version_or_a_checksum_a_download_is_not_resumed(site, tmp_path):
    site.tags, site.cut = False, [1000]
    assert fetch(f"{site.url}/a.bin", tmp_path / "a.bin").read_bytes() == DATA
    assert site.asked == [("/a.bin", None), ("/a.bin", None)]


@pytest.mark.parametrize("tags", [True, False])
@pytest.mark.parametrize("new", [DATA[::-1], DATA[:150_000], DATA[:1000], DATA[:500]])
def test_a_file_that_changed_in_between_is_downloaded_from_the_start(site, tmp_path, new, tags):
    site.cut, site.tags, target = [1000, 0, 0, 0], tags, tmp_path / "a.bin"
    with pytest.raises(EnvironmentFailure):
        fetch(f"{site.url}/a.bin", target, sha256=SHA)
    site.files["/a.bin"] = new
    for known in ({"sha256": hashlib.sha256(new).hexdigest()}, {}):
        again = tmp_path / f"{len(known)}.bin"
        for end in (".part", ".part.from"):
            (tmp_path / f"{again.name}{end}").write_bytes((tmp_path / f"a.bin{end}").read_bytes())
        assert fetch(f"{site.url}/a.bin", again, **known).read_bytes() == new


@pytest.mark.parametrize("length", [500, 1000, len(DATA)])
def test_a_changed_file_is_detected_without_a_checksum_if_the_server_ignores_if_range(site, tmp_path, length):
    site.heeds, new = False, DATA[::-1][:length]
    (tmp_path / "a.bin.part").write_bytes(DATA[:1000])
    (tmp_path / "a.bin.part.from").write_text(f'{site.url}/a.bin\n"{SHA[:8]}"\n')
    site.files["/a.bin"] = new
    assert fetch(f"{site.url}/a.bin", tmp_path / "a.bin").read_bytes() == new


@pytest.mark.parametrize("sums", [{"sha256": SHA}, {"size": len(DATA)}, {}])
def test_a_complete_part_becomes_the_file(site, tmp_path, sums):
    target = tmp_path / "a.bin"
    (tmp_path / "a.bin.part").write_bytes(DATA)
    (tmp_path / "a.bin.part.from").write_text(f'{site.url}/a.bin\n"{SHA[:8]}"\n')
    assert fetch(f"{site.url}/a.bin", target, **sums).read_bytes() == DATA
    assert site.sent["/a.bin"] == 0
    assert clean(target)


def test_a_wrong_checksum_is_reported_and_the_next_attempt_starts_from_the_beginning(site, tmp_path):
    target = tmp_path / "a.bin"
    with pytest.raises(EnvironmentFailure) as caught:
        fetch(f"{site.url}/a.bin", target, sha256="0" * 64)
    assert "a.bin" in str(caught.value)
    assert f"its sha256 is {SHA}, expected {'0' * 64}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    assert not (tmp_path / "a.bin.part").exists()
    site.asked.clear()
    assert fetch(f"{site.url}/a.bin", target, sha256=SHA).read_bytes() == DATA
    assert site.asked == [("/a.bin", None)]


def test_a_part_of_another_file_is_detected_by_the_checksum_and_replaced(site, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    assert fetch(f"{site.url}/a.bin", tmp_path / "a.bin", sha256=SHA).read_bytes() == DATA
    assert [span for _, span in site.asked] == ["bytes=1000-", None]


def test_a_part_longer_than_the_file_is_thrown_away(site, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"x" * 400_000)
    assert fetch(f"{site.url}/a.bin", tmp_path / "a.bin", sha256=SHA).read_bytes() == DATA


def test_a_file_of_another_size_is_refused_before_it_is_downloaded(site, tmp_path):
    with pytest.raises(EnvironmentFailure, match="the file on the server has 300000 bytes, expected 5"):
        fetch(f"{site.url}/a.bin", tmp_path / "a.bin", size=5)
    assert not (tmp_path / "a.bin").exists()


def test_a_truncated_file_that_exists_is_an_error(site, tmp_path):
    (tmp_path / "a.bin").write_bytes(DATA[:10])
    with pytest.raises(EnvironmentFailure, match="has 10 bytes, expected 300000; remove it"):
        fetch(f"{site.url}/a.bin", tmp_path / "a.bin", size=len(DATA))


def test_urls_are_tried_in_turn_and_the_next_one_resumes(site, tmp_path):
    first = Site({"/x/a.bin": DATA}, cut=[1000, 0, 0, 0], tags=False)
    with Served(first):
        urls = [f"{site.url}/none.bin", f"{first.url}/x/a.bin", f"{site.url}/a.bin"]
        assert fetch(urls, tmp_path / "a.bin", sha256=SHA).read_bytes() == DATA
    assert site.sent["/a.bin"] == len(DATA) - 1000


def test_a_url_with_a_wrong_file_does_not_stop_the_next(site, tmp_path):
    site.files["/bad.bin"] = DATA[::-1]
    assert fetch([f"{site.url}/bad.bin", f"{site.url}/a.bin"], tmp_path / "a.bin", md5=MD5).read_bytes() == DATA


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (403, 1), (500, 3), (503, 3), (429, 3)])
def test_http_errors_are_reported_and_only_temporary_ones_retried(site, tmp_path, status, asked):
    site.fail = [status] * 9
    with pytest.raises(EnvironmentFailure, match=rf"{site.url}/a.bin: HTTP {status} .*--root FOLDER"):
        fetch(f"{site.url}/a.bin", tmp_path / "a.bin")
    assert len(site.asked) == asked
    assert not (tmp_path / "a.bin").exists()


def test_a_temporary_error_is_retried(site, tmp_path):
    site.fail = [503, 500]
    assert fetch(f"{site.url}/a.bin", tmp_path / "a.bin", size=len(DATA)).read_bytes() == DATA


def test_a_silent_server_times_out(site, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    site.silence = 0.4
    with pytest.raises(EnvironmentFailure, match=r"no response within 0\.1 seconds"):
        fetch(f"{site.url}/a.bin", tmp_path / "a.bin")


def test_without_network_the_error_names_the_url_and_the_files_for_root(tmp_path):
    with pytest.raises(EnvironmentFailure) as caught:
        fetch("http://127.0.0.1:9/b.gz", tmp_path / "b.gz", files=["a.gz", "b.gz"])
    assert "\n" not in str(caught.value)
    assert "http://127.0.0.1:9/b.gz: " in str(caught.value)
    assert "get a.gz, b.gz elsewhere and give the folder with --root FOLDER" in str(caught.value)


def test_a_response_of_unknown_length_needs_a_checksum(site, tmp_path):
    site.length = False
    with pytest.raises(EnvironmentFailure, match="does not send the length"):
        fetch(f"{site.url}/a.bin", tmp_path / "a.bin")
    assert fetch(f"{site.url}/a.bin", tmp_path / "a.bin", sha256=SHA).read_bytes() == DATA


def test_a_chunked_response_is_complete_only_with_its_last_chunk(site, tmp_path):
    site.chunked, site.tags = True, False
    assert fetch(f"{site.url}/a.bin", tmp_path / "a.bin").read_bytes() == DATA
    for cut in (0, 3, 1000, len(DATA), len(DATA) + 9):
        site.cut = [cut] * 9
        with pytest.raises(EnvironmentFailure, match=r"cannot download b\.bin"):
            fetch(f"{site.url}/a.bin", tmp_path / "b.bin")
        assert not (tmp_path / "b.bin").exists()


def test_only_http_is_requested_also_after_a_redirection(site, tmp_path, monkeypatch):
    for url in ("file:///etc/hostname", "ftp://127.0.0.1/a"):
        with pytest.raises(UsageError, match="only http and https"):
            fetch(url, tmp_path / "a")
    site.moved = {"/m": f"{site.url}/a.bin", "/f": "file:///etc/hostname"}
    assert fetch(f"{site.url}/m", tmp_path / "m", sha256=SHA).read_bytes() == DATA
    with pytest.raises(EnvironmentFailure, match="cannot download f"):
        fetch(f"{site.url}/f", tmp_path / "f")
    monkeypatch.setenv("HASHZOO_MIRROR", "file:///")
    with pytest.raises(UsageError, match="HASHZOO_MIRROR"):
        fetch("https://example.org/a", tmp_path / "a")


def test_a_mirror_replaces_scheme_and_host(site, tmp_path, monkeypatch):
    monkeypatch.setenv("HASHZOO_MIRROR", f"{site.url}/")
    assert fetch(["https://one.invalid/a.bin", "http://two.invalid/a.bin"], tmp_path / "a.bin").read_bytes() == DATA
    assert download.address("https://one.invalid/x/a?b=c") == f"{site.url}/x/a?b=c"


@pytest.mark.skipif(os.geteuid() == 0 if sys.platform != "win32" else True, reason="root may write anywhere")
def test_a_read_only_folder_is_an_error(site, tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    with pytest.raises(EnvironmentFailure, match="HASHZOO_DATA"):
        fetch(f"{site.url}/a.bin", tmp_path / "shut" / "a.bin")


def test_a_full_disk_and_a_file_in_place_of_the_folder_are_errors(site, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EnvironmentFailure, match=r"cannot write .*HASHZOO_DATA"):
        fetch(f"{site.url}/a.bin", tmp_path / "file" / "a.bin")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFailure, match="No space left on device; set HASHZOO_DATA"):
        fetch(f"{site.url}/a.bin", tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()


def started(code, *arguments):
    """Start a process that has imported ``download`` and ``Path``, and waits for a line on its standard input."""
    head = "import sys; from pathlib import Path; from hashzoo_plugins.datasets import download; print(); input()\n"
    command = [sys.executable, "-c", head + code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def begin(*processes):
    """Let all processes continue when all are ready."""
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.flush()


def test_two_concurrent_processes_download_once(site, tmp_path):
    site.silence = 0.5
    code = "download.fetch(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3])"
    both = [started(code, f"{site.url}/a.bin", tmp_path / "a.bin", SHA) for _ in range(2)]
    begin(*both)
    for process in both:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert site.asked == [("/a.bin", None)]


def test_a_killed_download_leaves_only_a_part(site, tmp_path):
    target = tmp_path / "a.bin"
    process = started(
        "download._read = lambda r: (r.read1(1000), __import__('time').sleep(0.02))[0]\n"
        "download.fetch(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3])",
        f"{site.url}/a.bin",
        target,
        SHA,
    )
    begin(process)
    part = tmp_path / "a.bin.part"
    deadline = time.monotonic() + 120
    while (not part.exists() or part.stat().st_size < 8192) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not target.exists()
    kept = part.stat().st_size
    assert 0 < kept < len(DATA)
    site.sent.clear()
    assert fetch(f"{site.url}/a.bin", target, sha256=SHA).read_bytes() == DATA
    assert site.sent["/a.bin"] == len(DATA) - kept


def test_the_data_folder_follows_the_environment(tmp_path, monkeypatch):
    assert download.data_folder("x") == tmp_path / "data" / "x"
    monkeypatch.delenv("HASHZOO_DATA")
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path))
    assert download.data_folder("x") == tmp_path / "data" / "x"


def test_without_a_terminal_progress_is_plain_lines_with_the_time_left(monkeypatch):
    monkeypatch.setattr(progress, "FIRST", 0)
    text = io.StringIO()
    with progress.Progress("a.bin", Console(file=text)) as shown:
        shown.start(0, 4_000_000)
        shown.started -= 10
        shown.advance(1_000_000)
        shown.advance(1_000_000)
    assert text.getvalue() == "a.bin: 1 of 4 MB, 0:00:30 left\n"


def test_in_a_terminal_progress_is_a_bar_that_follows_no_color(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = io.StringIO()
    with progress.Progress("a[b].bin", Console(file=text, force_terminal=True, width=100)) as shown:
        shown.start(0, 4_000_000)
        shown.advance(1_000_000)
        shown.bar.refresh()
    assert "a[b].bin" in text.getvalue()
    assert "1.0/4.0 MB" in text.getvalue()
    assert "\x1b[3" not in text.getvalue()


def tar_of(path, members):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def zip_of(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return path


KINDS = {"a.tar": tar_of, "a.tar.gz": tar_of, "a.zip": zip_of}


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_becomes_a_folder_with_or_without_a_folder_of_that_name_inside(tmp_path, kind):
    archive = KINDS[kind](tmp_path / kind, {"made/x/1": DATA, "made/2": b"2"})
    assert (unpack(archive, tmp_path / "made") / "x" / "1").read_bytes() == DATA
    assert (unpack(archive, tmp_path / "other") / "made" / "2").read_bytes() == b"2"
    assert {p.name for p in tmp_path.iterdir()} == {kind, "made", "other"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["../out", "a/../../out", "/hashzoo-out"])
def test_members_outside_of_the_folder_are_refused(tmp_path, kind, name):
    archive = KINDS[kind](tmp_path / kind, {"fine": b"1", name: b"2"})
    if name.startswith("/") and kind != "a.zip":  # tar's filter takes the leading slash away
        assert (unpack(archive, tmp_path / "sub" / "made") / name[1:]).read_bytes() == b"2"
    else:
        with pytest.raises(EnvironmentFailure, match="outside the destination"):
            unpack(archive, tmp_path / "sub" / "made")
        assert [*(tmp_path / "sub").iterdir()] == []
    assert {p.name for p in tmp_path.iterdir()} == {kind, "sub"}


def test_links_out_of_the_folder_and_windows_drives_are_refused(tmp_path):
    with pytest.raises(EnvironmentFailure, match="outside the destination"):
        unpack(tar_of(tmp_path / "a.tar", {"link": "../../out"}), tmp_path / "made")
    with pytest.raises(EnvironmentFailure, match="outside the destination"):
        unpack(zip_of(tmp_path / "a.zip", {"C:\\out": b"1"}), tmp_path / "made")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0, 10, 1000, 150_000, 250_000])
def test_a_truncated_archive_creates_no_folder(tmp_path, kind, keep):
    archive = KINDS[kind](tmp_path / kind, {"made/1": DATA})
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(EnvironmentFailure, match="cannot unpack"):
        unpack(archive, tmp_path / "made")
    assert {p.name for p in tmp_path.iterdir()} == {kind}


def test_a_zip_with_a_damaged_member_creates_no_folder(tmp_path):
    archive = zip_of(tmp_path / "a.zip", {"made/1": DATA})
    data = bytearray(archive.read_bytes())
    data[1000] ^= 255
    archive.write_bytes(bytes(data))
    with pytest.raises(EnvironmentFailure, match="cannot unpack"):
        unpack(archive, tmp_path / "made")
    assert {p.name for p in tmp_path.iterdir()} == {"a.zip"}


@pytest.fixture
def small(site, tmp_path, monkeypatch):
    """An entry with a file, an archive with a folder in it, and a flat archive."""
    made = {
        "one.zip": zip_of(tmp_path / "one.zip", {"one/1.jpg": DATA}).read_bytes(),
        "flat.tar": tar_of(tmp_path / "flat.tar", {"a.txt": b"a", "b.txt": b"b"}).read_bytes(),
        "test/list.txt": b"x 0 1\n",
    }
    remotes = []
    for name, data in made.items():
        site.files[f"/data/{name}"] = data
        makes = name.partition(".")[0] if "list" not in name else None
        digest = hashlib.sha256(data).hexdigest()
        remotes.append(Remote((f"{site.url}/data/{name}",), name, len(data), sha256=digest, makes=makes))
    monkeypatch.setitem(archives.ARCHIVES, "small", tuple(remotes))
    return site


def test_an_entry_becomes_a_folder_with_its_images_and_lists(small, tmp_path):
    place = archives.fetch_folder("small")
    files = {p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file() and not p.name.endswith(".lock")}
    assert files == {"one/1.jpg", "flat/a.txt", "flat/b.txt", "test/list.txt"}
    assert place == tmp_path / "data" / "small"
    count = len(small.asked)
    assert archives.fetch_folder("small") == place
    assert len(small.asked) == count == 3


def test_an_interrupted_entry_keeps_its_complete_files(small):
    small.files["/data/kept"] = small.files.pop("/data/flat.tar")
    with pytest.raises(EnvironmentFailure, match=r"HTTP 404 .* get one.zip, flat.tar, test/list.txt elsewhere"):
        archives.fetch_folder("small")
    small.files["/data/flat.tar"] = small.files["/data/kept"]
    small.asked.clear()
    archives.fetch_folder("small")
    assert [path for path, _ in small.asked] == ["/data/flat.tar", "/data/test/list.txt"]


def test_two_concurrent_threads_create_an_entry_once(small):
    small.silence = 0.1
    threads = [threading.Thread(target=archives.fetch_folder, args=("small",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(small.asked) == 3


def test_an_unknown_entry_is_an_error_with_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'coco'"):
        archives.fetch_folder("cocoo")


def test_every_entry_has_checksums_and_stays_in_its_folder():
    for name, remotes in archives.ARCHIVES.items():
        for remote in remotes:
            check = Check(remote.size, remote.md5, remote.sha256)
            assert check.has_checksum, name
            assert check.size, name
            assert ".." not in remote.path
            assert [download.address(url) for url in remote.urls]
        assert len({remote.path for remote in remotes}) == len(remotes)


def test_checksums_are_those_of_torchvision():
    from torchvision.datasets import Imagenette
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    (images,) = archives.ARCHIVES["imagenette"]
    assert (images.urls[0], images.md5) == Imagenette._ARCHIVES["320px"]
    (voc,) = archives.ARCHIVES["voc2012"]
    assert (voc.urls[0], voc.md5) == (DATASET_YEAR_DICT["2012"]["url"], DATASET_YEAR_DICT["2012"]["md5"])
