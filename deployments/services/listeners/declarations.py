"""Reads and checks the declarations of sources: YAML files beside their flows.

    integration: stream_intake
    sources:
      orders-rabbitmq:
        kind: rabbitmq
        connection: {host: "${RABBITMQ_HOST}", username: app, password: "${RABBITMQ_PASSWORD}"}
        queue: orders
        event: header:type

`${NAME}` is the environment variable NAME or, if that is not set, the content of the file that
NAME_FILE names, such as a mounted secret. Adding an integration touches no other files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from blocks.errors import MisconfiguredError
from deployments.services.listeners.sources import AnySource, SourceDeclaration
from tasks.core.intake.messages.reading import MessageReader, MessageReading
from tasks.core.registry.flow_folders import flow_folders

SOURCES_VARIABLE = "INTEGRATIONS_SOURCES"
_PATTERNS = ("*/sources.yaml", "*.sources.yaml", "sources.yaml")
_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"
_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
_SOURCE: TypeAdapter[AnySource] = TypeAdapter(AnySource)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    integration: str = Field(pattern=_NAME)
    sources: dict[Annotated[str, Field(pattern=_NAME)], dict[str, Any]] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class DeclaredSource:
    """A source that can be listened to.

    Attributes:
        name: As declared; stored with each delivery as its endpoint.
        integration: The integration whose inbox its messages wait in.
        declaration: Its declaration.
        reader: Turns its messages into deliveries.
    """

    name: str
    integration: str
    declaration: SourceDeclaration
    reader: MessageReader


@dataclass(frozen=True, slots=True)
class UnusableSource:
    """A source with a missing setting, which is skipped.

    Attributes:
        name: As declared.
        integration: The integration's name.
        reason: What to do.
    """

    name: str
    integration: str
    reason: str


class _UnsetError(Exception):
    pass


def declaration_files(places: str | None = None) -> list[Path]:
    """Return the files to read.

    Args:
        places: Files and folders separated like PATH; None for `INTEGRATIONS_SOURCES`. If that
            is empty too, the flows' own: `flows/<integration>/sources.yaml` and
            `flows/<integration>.sources.yaml` in each of `flow_folders()`.

    Raises:
        MisconfiguredError: A place does not exist.
    """
    configured = places if places is not None else os.environ.get(SOURCES_VARIABLE)
    roots = [Path(part) for part in configured.split(os.pathsep)] if configured else flow_folders()
    return [file for root in roots for file in _files_of(root)]


def read_declarations(
    files: Sequence[Path], environment: Mapping[str, str]
) -> list[DeclaredSource | UnusableSource]:
    """Read and check the files, together.

    Raises:
        MisconfiguredError: Lists everything that is wrong, file by file, and how to fix it.
    """
    found: dict[str, DeclaredSource | UnusableSource] = {}
    problems: list[str] = []
    for file in files:
        try:
            content = _File.model_validate(yaml.safe_load(file.read_bytes()))
        except ValidationError as exc:
            problems += _problems(str(file), exc)
            continue
        except (OSError, yaml.YAMLError) as exc:
            problems.append(f"{file}: {exc}")
            continue
        for name, fields in content.sources.items():
            if name in found:
                problems.append(f"{file}: {name}: another source has this name; rename one")
            try:
                found[name] = _declared(content.integration, name, fields, environment)
            except ValidationError as exc:
                problems += _problems(f"{file}: {name}", exc)
            except MisconfiguredError as exc:
                problems.append(f"{file}: {name}: {exc.message}")
    if problems:
        raise _misconfigured("\n  ".join(["the declared sources cannot be used:", *problems]))
    return list(found.values())


def _declared(
    integration: str, name: str, fields: dict[str, Any], environment: Mapping[str, str]
) -> DeclaredSource | UnusableSource:
    try:
        filled = _filled(fields, environment)
    except _UnsetError as exc:
        return UnusableSource(name, integration, str(exc))
    declaration = _SOURCE.validate_python(filled)
    reading = MessageReading(
        integration=integration,
        endpoint=name,
        event=declaration.event,
        dedup=declaration.dedup,
        ordering_key=declaration.ordering_key,
        decoder=declaration.decoder(),
        max_body_bytes=declaration.max_body_bytes,
    )
    return DeclaredSource(name, integration, declaration, MessageReader(reading))


def _filled(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(each, environment) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, environment) for each in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: _look_up(found[1], environment), value)
    return value


def _look_up(name: str, environment: Mapping[str, str]) -> str:
    if name in environment:
        return environment[name]
    file = environment.get(f"{name}_FILE")
    if file is None:
        raise _UnsetError(f"set {name}, or {name}_FILE to a file that holds it")
    try:
        return Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise _UnsetError(f"the file that {name}_FILE names cannot be read") from exc


def _files_of(root: Path) -> Iterable[Path]:
    if root.is_dir():
        return sorted(file for pattern in _PATTERNS for file in root.glob(pattern))
    if root.is_file():
        return [root]
    raise _misconfigured(f"{root} does not exist; fix {SOURCES_VARIABLE}")


def _problems(where: str, exc: ValidationError) -> Iterable[str]:
    for error in exc.errors(include_url=False, include_input=False, include_context=False):
        place = ".".join(map(str, error["loc"])) or "the file"
        yield f"{where}: {place}: {error['msg']}"


def _misconfigured(message: str) -> MisconfiguredError:
    return MisconfiguredError(message, system="listeners", operation="read sources")
