"""A SQL database and its login."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Literal, Self

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, model_validator
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import NoSuchModuleError
from sqlalchemy.pool import NullPool

from blocks.connections.network import not_installed
from blocks.errors import MisconfiguredError

_DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "mariadb": "mariadb+pymysql",
    "mssql": "mssql+pytds",
    "sqlite": "sqlite",
}
# package, and this project's extra that installs it
_CLIENTS = {
    "mariadb": ("PyMySQL", "mysql"),
    "mssql": ("sqlalchemy-pytds", "mssql"),
}


class SqlDatabase(Block):
    """A database on PostgreSQL, MariaDB, MySQL, SQL Server or in a SQLite file.

    Example:
        Count the rows of a table:
        ```python
        from sqlalchemy import text
        from blocks.sql_database import SqlDatabase

        engine = SqlDatabase.load("BLOCK_NAME").get_client()
        with engine.connect() as connection:
            print(connection.execute(text("SELECT count(*) FROM orders")).scalar_one())
        ```
    """

    _block_type_name = "SQL Database"
    _block_type_slug = "sql-database"

    model_config = ConfigDict(hide_input_in_errors=True)

    kind: Literal["postgresql", "mariadb", "mssql", "sqlite"] = Field(
        description="The kind of database; mariadb also serves MySQL."
    )
    host: str | None = Field(default=None, description="Name or address of the server.")
    port: int | None = Field(default=None, ge=1, le=65535, description="Port, if not the default.")
    database: str = Field(description="Name of the database; for SQLite the path of its file.")
    username: str | None = Field(default=None, description="The user.")
    password: SecretStr | None = Field(default=None, description="The password.")
    tls: bool = Field(
        default=True,
        description=(
            "Encrypt the connection and verify the server. WARNING: if off, anyone on the network "
            "path can read and change everything, including the password."
        ),
    )
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the certificate authorities to trust instead of the public ones.",
    )
    connect_timeout_s: int = Field(
        default=10, ge=1, description="Seconds to wait for a connection."
    )
    read_timeout_s: int = Field(
        default=300, ge=1, description="Seconds a statement may take before it times out."
    )

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        if self.kind != "sqlite" and not self.host:
            raise ValueError("give the host")
        return self

    @property
    def system(self) -> str:
        """Name of this database in errors, e.g. "postgresql://db.example/shop"."""
        if self.kind == "sqlite":
            return f"sqlite:{self.database}"
        port = f":{self.port}" if self.port else ""
        return f"{self.kind}://{self.host}{port}/{self.database}"

    def get_client(self) -> Engine:
        """Return an engine that opens connections on demand and closes them after use.

        Transactions see only committed data (READ COMMITTED); SQLite's run one at a time.

        Raises:
            MisconfiguredError: The driver is not installed, or `ca_file` cannot be read.
        """
        url = URL.create(
            _DRIVERS[self.kind],
            username=self.username if self.kind != "sqlite" else None,
            password=self.password.get_secret_value() if self.password else None,
            host=self.host if self.kind != "sqlite" else None,
            port=self.port if self.kind != "sqlite" else None,
            database=self.database,
        )
        options: dict[str, Any] = {"poolclass": NullPool, "connect_args": self._driver_options()}
        if self.kind in ("postgresql", "mariadb"):
            # SQL Server's default already; its python-tds dialect cannot set it
            options["isolation_level"] = "READ COMMITTED"
        try:
            engine = create_engine(url, **options)
        except (ImportError, NoSuchModuleError) as exc:
            package, extra = _CLIENTS.get(self.kind, (self.kind, self.kind))
            raise not_installed(package, extra=extra, system=self.system) from exc
        if self.kind == "sqlite":
            event.listen(engine, "connect", _leave_transactions_to_us)
            event.listen(engine, "begin", _begin_immediately)
        return engine

    def _driver_options(self) -> dict[str, Any]:
        timeout_s = self.connect_timeout_s
        match self.kind:
            case "postgresql":
                return {
                    "connect_timeout": timeout_s,
                    "sslmode": "verify-full" if self.tls else "disable",
                    "options": f"-c statement_timeout={self.read_timeout_s * 1000}",
                    # notices within half a minute that a server has vanished
                    "keepalives_idle": 10,
                    "keepalives_interval": 5,
                    "keepalives_count": 3,
                    "tcp_user_timeout": 25_000,
                    **({"sslrootcert": str(self.ca_file or "system")} if self.tls else {}),
                }
            case "mariadb":
                return {
                    "connect_timeout": timeout_s,
                    "read_timeout": self.read_timeout_s,
                    "write_timeout": self.read_timeout_s,
                    "ssl": self._tls_context() if self.tls else None,
                    "charset": "utf8mb4",
                }
            case "mssql":
                options = {"login_timeout": timeout_s, "timeout": self.read_timeout_s}
                # python-tds encrypts once it has authorities to trust
                return options | ({"cafile": self._authorities()} if self.tls else {})
            case _:
                return {"timeout": timeout_s}

    def _authorities(self) -> str:
        if self.ca_file is not None:
            return str(self.ca_file)
        found = ssl.get_default_verify_paths().cafile
        if found is None:
            raise MisconfiguredError(
                "this machine has no file of public authorities; give ca_file",
                system=self.system,
                operation="connect",
            )
        return found

    def _tls_context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as exc:
            raise MisconfiguredError(
                "ca_file cannot be read as PEM certificates",
                system=self.system,
                operation="connect",
            ) from exc


def _leave_transactions_to_us(connection: Any, _record: Any) -> None:
    connection.isolation_level = None


def _begin_immediately(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
