"""A small MariaDB server in a lab host, and how it is made anew and brought down."""

from __future__ import annotations

#: A small server with a binary log and a table of each engine, and what puts it back.
SETUP = """
install -d -o mysql -g adm -m 2750 /var/log/mysql
cat > /etc/mysql/mariadb.conf.d/90-lab.cnf <<'END'
[mariadbd]
log_bin=/var/log/mysql/mariadb-bin
server_id=1
sync_binlog=1
innodb_log_file_size=8M
innodb_buffer_pool_size=16M
max_connections=10
skip-networking
END
# A test starts it more often than an operator would.
mkdir -p /etc/systemd/system/mariadb.service.d
printf '[Unit]\\nStartLimitIntervalSec=0\\n' > /etc/systemd/system/mariadb.service.d/lab.conf
systemctl daemon-reload
systemctl stop mariadb
rm -rf /var/lib/mysql/* /var/log/mysql/*
mariadb-install-db --user=mysql --auth-root-authentication-method=socket >/dev/null
systemctl start mariadb
mariadb <<'END'
DELETE FROM mysql.global_priv WHERE User = '';
FLUSH PRIVILEGES;
CREATE DATABASE shop;
USE shop;
CREATE TABLE i (id INT PRIMARY KEY, t VARCHAR(100)) ENGINE=InnoDB;
CREATE TABLE a (id INT PRIMARY KEY, t VARCHAR(100)) ENGINE=Aria;
CREATE TABLE m (id INT PRIMARY KEY, t VARCHAR(100)) ENGINE=MyISAM;
INSERT INTO i SELECT seq, MD5(seq) FROM seq_1_to_1000;
INSERT INTO a SELECT seq, MD5(seq) FROM seq_1_to_1000;
INSERT INTO m SELECT seq, MD5(seq) FROM seq_1_to_1000;
END
systemctl stop mariadb
cp -a /var/lib/mysql /root/mysql.good
cp -a /var/log/mysql /root/log.good
"""

#: The server as SETUP left it, not started.
FRESH = """
set -e
systemctl kill -s CONT mariadb 2>/dev/null || true
systemctl stop mariadb
systemctl reset-failed mariadb 2>/dev/null || true
while mountpoint -q /var/log/mysql; do umount -l /var/log/mysql; done
rm -rf /var/lib/mysql /var/log/mysql
cp -a /root/mysql.good /var/lib/mysql
cp -a /root/log.good /var/log/mysql
"""
START = "systemctl start mariadb"
#: It is killed, and stays down.
CRASH = """
systemctl kill -s KILL mariadb
while systemctl is-active -q mariadb; do sleep 0.05; done
systemctl stop mariadb
"""
