"""Clusters of Debian's, by their configuration."""

from __future__ import annotations

from pathlib import Path

from agent.host.postgres_cluster import find_cluster, list_clusters, read_settings


def configure(directory: Path, cluster: str, text: str) -> Path:
    home = directory / cluster
    (home / "conf.d").mkdir(parents=True)
    (home / "postgresql.conf").write_text(text)
    return home


def test_a_cluster_is_read_from_its_configuration(tmp_path: Path) -> None:
    home = configure(
        tmp_path,
        "15/main",
        "data_directory = '/srv/it''s/15'\t# moved\n#port = 1\nport = 5433  # not 5432\n",
    )
    cluster = find_cluster("postgresql@15-main.service", tmp_path)
    assert cluster is not None
    assert cluster.unit == "postgresql@15-main.service"
    assert cluster.directory == "/srv/it's/15"
    assert cluster.socket == "/var/run/postgresql/.s.PGSQL.5433"
    assert cluster.log == "/var/log/postgresql/postgresql-15-main.log"
    (home / "conf.d" / "90.conf").write_text("port 5440\nunix_socket_directories='/run/a, /tmp'\n")
    (home / "log").symlink_to("/var/log/elsewhere.log")
    cluster = find_cluster("postgresql@15-main.service", tmp_path)
    assert cluster is not None
    assert (cluster.socket, cluster.log) == ("/run/a/.s.PGSQL.5440", "/var/log/elsewhere.log")


def test_what_says_nothing_has_debians_defaults(tmp_path: Path) -> None:
    configure(tmp_path, "9.6/old-one", "")
    (cluster,) = list_clusters(tmp_path)
    assert cluster.unit == "postgresql@9.6-old-one.service"
    assert cluster.directory == "/var/lib/postgresql/9.6/old-one"
    assert cluster.socket.endswith(".s.PGSQL.5432")


def test_other_units_and_clusters_without_files_are_none(tmp_path: Path) -> None:
    assert find_cluster("postgresql.service", tmp_path) is None
    assert find_cluster("postgresql@15-main.service", tmp_path) is None
    assert find_cluster("postgresql@..-...service", tmp_path) is None
    assert list_clusters(tmp_path / "none") == ()


def test_settings_are_read_as_the_server_reads_them() -> None:
    text = (
        "Port=1\nport = 2\nlog_line_prefix = '%m [%p] # '\nwork_mem 4MB\ninclude_dir = 'conf.d'\n"
    )
    assert read_settings(text) == {
        "port": "2",
        "log_line_prefix": "%m [%p] # ",
        "work_mem": "4MB",
        "include_dir": "conf.d",
    }
