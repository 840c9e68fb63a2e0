"""What the local servers set in postgresql.conf, and why."""

from __future__ import annotations

from collections.abc import Mapping

Settings = Mapping[str, str | int]

COMMON: Settings = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # paths of sockets are limited to 107 bytes, those of checkouts aren't
    "max_connections": 120,
    "reserved_connections": 5,  # so that the administrator gets in when the application has taken the rest
    "shared_buffers": "24MB",
    "max_wal_size": "256MB",
    "min_wal_size": "16MB",
    "wal_level": "logical",
    "max_wal_senders": 20,
    "max_replication_slots": 20,
    "max_worker_processes": 20,
    "max_logical_replication_workers": 12,
    "hot_standby_feedback": "on",
    "wal_retrieve_retry_interval": "200ms",  # a replica that started before its primary shall not wait 5 s
    "wal_log_hints": "on",  # pg_rewind needs it
    "password_encryption": "scram-sha-256",
    "log_line_prefix": "%m [%p] %u@%d %a ",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# A test throws its data away, and none cuts the power: kill -9 loses nothing that the kernel was handed.
FOR_TESTS: Settings = {
    "fsync": "off",
    "full_page_writes": "off",
    "dynamic_shared_memory_type": "mmap",  # goes with the directory, also after kill -9
    "autovacuum": "off",  # its workers would be in the way of CREATE DATABASE and of counted statements
}
DURABLE: Settings = {
    "shared_buffers": "64MB",
    "max_wal_size": "1GB",
    "min_wal_size": "80MB",
    "log_min_duration_statement": "1s",
}
SINCE_18: Settings = {"io_method": "sync"}  # three I/O workers per server are too many for eight servers on two cores

ACCESS = """\
# TYPE  DATABASE     USER            ADDRESS        METHOD
host    all          all             127.0.0.1/32   scram-sha-256
host    replication  shardlib_admin  127.0.0.1/32   scram-sha-256
"""


def quoted(value: str | int) -> str:
    """Quote a value for postgresql.conf."""
    return "'" + str(value).replace("'", "''") + "'"


def render(*layers: Settings) -> str:
    """Write postgresql.conf; a later layer wins."""
    merged = {name: value for layer in layers for name, value in layer.items()}
    return "".join(f"{name} = {quoted(value)}\n" for name, value in sorted(merged.items()))
