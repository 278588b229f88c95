import json
import stat
import zipfile
from pathlib import Path

import pytest

from totalspineseg_bids.cli.tools import main
from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.inference.folders import sha256
from totalspineseg_bids.models import archive, catalog
from totalspineseg_bids.models.install import install
from totalspineseg_bids.models.registry import resolve
from totalspineseg_bids.models.verify import MANIFEST, check

from .conftest import NAMES, TRAINER, Server, model_files, write_folder, write_zip


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def expected_files(*roles: str) -> set[str]:
    names = ("dataset.json", "plans.json", "fold_0/checkpoint_final.pth")
    return {MANIFEST, *(f"{NAMES[role]}/{TRAINER}/{name}" for role in roles for name in names)}


def test_zips_of_a_release_one_after_the_other(tmp_path, cache):
    for role in ("step1", "step2"):
        folder = install(write_zip(tmp_path / f"{NAMES[role]}_r20241115.zip", role))
    assert folder == cache / "r20241115"
    assert files_below(folder) == expected_files("step1", "step2")
    manifest = json.loads((folder / MANIFEST).read_text())
    assert len(manifest["sources"]) == 2
    assert all(len(source["sha256"]) == 64 for source in manifest["sources"])
    assert check("r20241115")
    assert resolve("r20241115").step2 == folder / NAMES["step2"] / TRAINER


def test_folder_and_folder_of_zips(tmp_path):
    folder = install(write_folder(tmp_path / "my models", "step1", "step2"))
    assert folder.name == "my-models"
    assert files_below(folder) == expected_files("step1", "step2")
    for role in ("step1", "step2"):
        write_zip(tmp_path / "exports" / f"{NAMES[role]}.zip", role)
    assert files_below(install(tmp_path / "exports", name="other")) == expected_files("step1", "step2")


def test_model_at_the_root_of_a_zip(tmp_path):
    path = tmp_path / "flat.zip"
    with zipfile.ZipFile(path, "w") as target:
        for name, content in model_files("single").items():
            target.writestr(name.split("/", 2)[2], content)
    assert resolve(install(path).name).single is not None


def test_a_changed_file_is_noticed(tmp_path, cache):
    install(write_zip(tmp_path / "set.zip", "step1", "step2"))
    checkpoint = cache / "set" / NAMES["step1"] / TRAINER / "fold_0" / "checkpoint_final.pth"
    checkpoint.write_bytes(b"something else")
    with pytest.raises(ModelError, match=r"not as it was installed.*checkpoint_final.pth changed\).*install set"):
        resolve("set")
    (cache / "set" / NAMES["step2"] / TRAINER / "plans.json").unlink()
    with pytest.raises(ModelError, match=r"changed, .*plans\.json is missing\)"):
        check("set")
    install(tmp_path / "set.zip")
    assert check("set")


def test_verify_needs_a_manifest():
    with pytest.raises(ModelError, match=r"models\.json"):
        check("r20251124")


@pytest.mark.parametrize("name", ["../escape", "/absolute", "", ".hidden", "bundled", "a/b"])
def test_names_stay_in_the_cache_folder(tmp_path, name):
    archive_path = write_zip(tmp_path / "-.zip", "step1")
    with pytest.raises(ModelError, match="cannot be the name"):
        install(archive_path, name=name or "..")


def hostile_zip(path: Path, name: str, mode: int = stat.S_IFREG, flags: int = 0) -> Path:
    write_zip(path, "step1")
    with zipfile.ZipFile(path, "a") as target:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = (mode | 0o644) << 16
        target.writestr(entry, b"payload")
    if flags:  # set in the central directory, where it is looked at first
        content = path.read_bytes()
        at = content.rindex(b"PK\x01\x02")
        path.write_bytes(content[: at + 8] + flags.to_bytes(2, "little") + content[at + 10 :])
    return path


@pytest.mark.parametrize(
    ("name", "mode", "flags"),
    [
        ("../../escaped.txt", stat.S_IFREG, 0),
        ("a/../../escaped.txt", stat.S_IFREG, 0),
        ("/escaped.txt", stat.S_IFREG, 0),
        ("C:/escaped.txt", stat.S_IFREG, 0),
        ("..\\escaped.txt", stat.S_IFREG, 0),
        (f"{NAMES['step1']}/{TRAINER}/fold_1", stat.S_IFLNK, 0),
        ("pipe", stat.S_IFIFO, 0),
        ("secret", stat.S_IFREG, 1),
    ],
)
def test_hostile_zips_are_refused(tmp_path, cache, name, mode, flags):
    path = hostile_zip(tmp_path / "in" / "hostile.zip", name, mode, flags)
    before = files_below(tmp_path)
    with pytest.raises(ModelError, match=r"hostile\.zip is refused"):
        install(path)
    with pytest.raises(ModelError, match=r"hostile\.zip is refused"):
        resolve(str(path))
    assert files_below(tmp_path) == before
    assert not cache.exists()


def test_zip_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_RATIO_MATTERS_FROM", 2**20)
    path = write_zip(tmp_path / "bomb.zip", "step1", weights=bytes(4 * 2**20))
    with pytest.raises(ModelError, match="unpacks to"):
        install(path)
    monkeypatch.setattr(archive, "_MAX_ENTRIES", 3)
    with pytest.raises(ModelError, match="entries"):
        install(path)


def test_damaged_zips(tmp_path, cache):
    path = write_zip(tmp_path / "set.zip", "step1", weights=bytes(range(256)) * 40)
    content = bytearray(path.read_bytes())
    (tmp_path / "short.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=r"short\.zip is not a readable zip"):
        install(tmp_path / "short.zip")
    with zipfile.ZipFile(path) as archive_file:
        entry = max(archive_file.infolist(), key=lambda item: item.file_size)
    content[entry.header_offset + 30 + len(entry.filename) + 60] ^= 0xFF
    (tmp_path / "flipped.zip").write_bytes(content)
    with pytest.raises(ModelError, match=r"flipped\.zip.* cannot be read"):
        install(tmp_path / "flipped.zip")
    assert not list(cache.rglob("*.pth"))


def test_what_holds_no_model(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as target:
        target.writestr("readme.txt", "nothing here")
    with pytest.raises(ModelError, match="no nnU-Net 3d_fullres model"):
        install(tmp_path / "other.zip")
    with pytest.raises(ModelError, match="neither a file"):
        install(tmp_path / "nowhere.zip")
    with pytest.raises(ModelError, match="only http and https"):
        install(url="file:///etc/passwd", name="x")


def publish(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the release r20251124 lie on the local server."""
    urls = []
    for role in ("step1", "step2"):
        path = write_zip(tmp_path / "served" / f"{NAMES[role]}_r20251124.zip", role, weights=bytes(range(256)) * 99)
        urls.append(f"{server.address}/{path.name}")
    monkeypatch.setitem(catalog.RELEASES, "r20251124", tuple(urls))


def test_release_over_the_network(server, tmp_path, cache, monkeypatch, capsys):
    publish(server, tmp_path, monkeypatch)
    assert main(["models", "install", "r20251124"]) == 0
    folder = cache / "r20251124"
    assert files_below(cache) == {f"r20251124/{name}" for name in expected_files("step1", "step2")}
    assert resolve("r20251124").step1 is not None
    asked = len(server.ranges)
    assert install("r20251124") == folder  # nothing is fetched again
    assert len(server.ranges) == asked
    for command in ("verify", "list"):
        assert main(["models", command]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "r20251124: 6 files as installed" in lines
    assert [line.split()[-3:] for line in lines if line.startswith("r20251124 ")] == [["yes", "step1,", "step2"]]
    next(folder.rglob("*.pth")).write_bytes(b"damaged")
    assert main(["models", "verify", "r20251124"]) == 66
    assert "checkpoint_final.pth changed" in capsys.readouterr().err.splitlines()[-1]
    install("r20251124")
    assert len(check("r20251124")) == 6
    install("r20251124", force=True)
    assert len(server.ranges) == asked + 4


@pytest.mark.parametrize("resumable", [True, False])
def test_a_broken_download_goes_on(server, tmp_path, monkeypatch, resumable):
    publish(server, tmp_path, monkeypatch)
    server.resumable = resumable
    server.break_after = [700]
    whole = sum(path.stat().st_size for path in (tmp_path / "served").iterdir())
    install("r20251124")
    assert server.ranges[:2] == [None, "bytes=700-"]
    assert server.sent == whole + (0 if resumable else 700)
    assert check("r20251124")


def test_a_later_call_resumes(server, tmp_path, cache, monkeypatch):
    publish(server, tmp_path, monkeypatch)
    server.break_after = [100, 100, 100, 100]
    with pytest.raises(ModelError, match=r"cannot download.*bytes came.*models install ZIP --name r20251124"):
        install("r20251124")
    assert [path.stat().st_size for path in (cache / ".downloads").glob("*.part")] == [400]
    install("r20251124")
    assert "bytes=400-" in server.ranges
    assert not list((cache / ".downloads").iterdir())


def test_a_file_that_changed_meanwhile_is_fetched_anew(server, tmp_path, monkeypatch):
    publish(server, tmp_path, monkeypatch)
    server.break_after = [100, 100, 100, 100]
    with pytest.raises(ModelError):
        install("r20251124")
    publish(server, tmp_path, monkeypatch)
    changed = write_zip(tmp_path / "served" / f"{NAMES['step1']}_r20251124.zip", "step1", weights=b"newer")
    assert changed.exists()
    install("r20251124")
    assert resolve("r20251124").step1 is not None


def test_offline_says_what_to_copy_where(server, tmp_path, monkeypatch, cache):
    publish(server, tmp_path, monkeypatch)
    server.shutdown()
    server.server_close()
    with pytest.raises(ModelError) as caught:
        install("r20251124")
    message = str(caught.value)
    assert "\n" not in message
    for url in catalog.RELEASES["r20251124"]:
        assert url in message
    assert "totalspineseg-tools models install ZIP --name r20251124" in message
    assert files_below(cache) == set()


def test_address_that_does_not_exist(server):
    with pytest.raises(ModelError, match="HTTP 404"):
        install(url=f"{server.address}/missing_r20300101.zip")
    assert len(server.ranges) == 1


def test_damaged_download_is_not_kept(server, tmp_path, cache):
    (tmp_path / "served" / "bad.zip").write_bytes(b"<html>not a zip</html>")
    with pytest.raises(ModelError, match="not a readable zip"):
        install(f"{server.address}/bad.zip")
    assert files_below(cache) == set()


def test_only_zips_with_the_wanted_digests(server, tmp_path, monkeypatch, cache):
    publish(server, tmp_path, monkeypatch)
    first, second = (sha256(path) for path in sorted((tmp_path / "served").iterdir()))
    with pytest.raises(ModelError, match=f"step2.*SHA-256 is {second}"):
        install("r20251124", sha256=[first])
    assert not list(cache.rglob(f"{NAMES['step2']}*"))
    install("r20251124", sha256=[second.upper(), f"sha256:{first}"])
    assert check("r20251124")
    local = write_zip(tmp_path / "mine.zip", "single")
    with pytest.raises(ModelError, match=r"mine\.zip is refused"):
        install(local, sha256=[first])
    assert not (cache / "mine").exists()
    assert install(local, sha256=[sha256(local)]).name == "mine"
    with pytest.raises(ModelError, match="is a folder"):
        install(write_folder(tmp_path / "set", "step1"), sha256=[first])
    with pytest.raises(ModelError, match="not a SHA-256"):
        install(local, sha256=["abc"])
