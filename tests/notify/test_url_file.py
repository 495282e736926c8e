from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.errors import ConfigError, Unavailable
from agent.host.secret_file import LONGEST
from agent.notify.url_file import read_url_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ops"
    path.write_text("json://S3cret\n")
    path.chmod(0o600)
    return path


def test_urls_stand_one_a_line_between_comments(file):
    file.write_text("# ops\n\n  json://a.example.org/#x \r\n\tjson://b.example.org\n#json://c\n")
    assert read_url_file(str(file)) == ["json://a.example.org/#x", "json://b.example.org"]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_file_closed_to_others_is_read(file, mode):
    file.chmod(mode)
    assert read_url_file(str(file)) == ["json://S3cret"]


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o660, 0o620, 0o777])
def test_a_file_open_to_others_is_refused_with_the_way_out(file, mode):
    file.chmod(mode)
    with pytest.raises(Unavailable) as refused:
        read_url_file(str(file))
    assert f"mode {mode:04o}" in str(refused.value)
    assert f"chmod 0600 {file}" in str(refused.value)


def test_a_file_of_another_user_is_refused_with_the_way_out(file):
    os.chown(file, 12345, 0)
    with pytest.raises(Unavailable, match=f"belongs to user 12345.*chown {os.geteuid()} {file}"):
        read_url_file(str(file))


def test_a_link_to_a_file_is_followed(file, tmp_path):
    (tmp_path / "link").symlink_to(file)
    assert read_url_file(str(tmp_path / "link")) == ["json://S3cret"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(Unavailable, match=f"cannot read url_file {tmp_path}/none: No such file"):
        read_url_file(str(tmp_path / "none"))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(Unavailable, match="not a regular file"):
        read_url_file(str(tmp_path / "pipe"))


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", Unavailable),
        (b"# later\n\n", Unavailable),
        (b"json://\xff\n", ConfigError),
        (b"json://S3cret\n" * (LONGEST // 13), ConfigError),
    ],
    ids=["empty", "comments only", "not UTF-8", "too long"],
)
def test_a_file_without_usable_content_is_refused_and_not_shown(file, content, error):
    file.write_bytes(content)
    with pytest.raises(error, match="cannot use url_file") as refused:
        read_url_file(str(file))
    assert "S3cret" not in str(refused.value)
