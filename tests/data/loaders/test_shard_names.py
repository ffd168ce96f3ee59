"""Names of shards as users of open_clip write them; the shell is the oracle for braces."""

import shutil
import subprocess

import pytest

from ovs_lite.data.loaders.shard_names import shard_paths, union_parts

PATTERNS = [
    "cc3m-{000..012}.tar", "cc3m-{0..12}.tar", "{b,a}-{8..11}.tar", "x{3..1}.tar", "x{08..10}.tar", "x{8..010}.tar",
    "{cc3m,cc12m}/{00..01}/{5,4}.tar", "plain.tar", "x{7..7}.tar", "x{5,}.tar",
    "{" + ",".join(f"{number:05d}" for number in range(60)) + "}.tar",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_braces_mean_what_the_shell_means(tmp_path, monkeypatch, pattern):
    if not shutil.which("bash"):
        pytest.skip("needs bash, whose braces these are")
    names = subprocess.run(["bash", "-c", f"echo {pattern}"], capture_output=True, text=True).stdout.split()
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in shard_paths([pattern])] == names
    assert shard_paths([pattern], lambda name: tmp_path / name) == shard_paths([pattern])


def test_a_union_is_its_parts_in_their_order_and_names_each_file_once(tmp_path):
    for name in ("a-0.tar", "a-1.tar", "b-0.tar"):
        (tmp_path / name).touch()
    found = shard_paths([f"{tmp_path}/b-*.tar::{tmp_path}/a-{{1..0}}.tar", f"{tmp_path}/a-0.tar"])
    assert [path.name for path in found] == ["b-0.tar", "a-1.tar", "a-0.tar"]
    assert union_parts("a.tar::b.tar::c.tar") == ["a.tar", "b.tar", "c.tar"] and union_parts("a:b.tar") == ["a:b.tar"]


@pytest.mark.parametrize("source, message", [
    ("a.tar::", "got 'a.tar::', expected names on both sides of '::', such as"),
    ("cc3m-{000..331.tar", r"got 'cc3m-\{000..331.tar', expected braces that close, such as cc3m-\{000..331\}.tar"),
    ("pipe:aws s3 cp s3://b/0.tar -", "expected files: .* download the shards first"),
    ("https://h/{0..9}.tar", "got 'https://h/{0..9}.tar', expected files"),
])  # fmt: skip
def test_what_names_no_file_is_refused_with_the_cure(source, message):
    with pytest.raises(ValueError, match=message):
        shard_paths([source])
