"""The Storage API's JSON for a token, a bucket, a table, a job and a file (docs/keboola.md 1.5, 2.2, 5 and 6.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sandbox.metadata import Metadata
from sandbox.store_access import Target
from sandbox.tables import Shape, Table, api_time

#: of each exported file (docs/keboola.md 6.1)
TAGS = ("table-export",)


@dataclass
class Job:
    """An export job. The next `polls_left` polls report it as unfinished."""

    id: int
    table: Table
    shape: Shape
    polls_left: int
    created: float
    run_id: str | None
    file_id: int
    cache_hit: bool
    #: the status with which it ends; "processing": it never ends
    outcome: str = "success"


@dataclass
class File:
    """An export's file: a manifest and its slices, or one object with a header line."""

    id: int
    name: str
    target: Target
    size: int
    created: float
    run_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bucket:
    """A bucket; it may be empty."""

    id: str
    #: epoch seconds
    created: float
    description: str = ""


def token(text: str, project: str, buckets: Sequence[str], provider: str, region: str) -> dict[str, object]:
    """The answer of tokens/verify. PHP writes an empty map as an empty list."""
    owner = {
        "id": int(project) if project.isdigit() else 1,
        "name": "Sandbox",
        "type": "demo",
        "features": [],
        "region": region,
        "defaultBackend": "snowflake",
        "fileStorageProvider": provider,
        "limits": {"storage.jobsParallelism": {"name": "storage.jobsParallelism", "value": 10}},
        "isDisabled": False,
    }
    return {
        "id": (text.split("-") + ["1"])[1],
        "token": text,
        "description": "sandbox",
        "created": api_time(0),
        "refreshed": api_time(0),
        "expires": None,
        "isExpired": False,
        "isDisabled": False,
        "isMasterToken": False,
        "canManageBuckets": False,
        "canReadAllFileUploads": False,
        "bucketPermissions": {bucket: "read" for bucket in buckets} or [],
        "componentAccess": [],
        "owner": owner,
    }


def bucket(shown: Bucket, tables: Sequence[Table], backend: str, url: str) -> dict[str, object]:
    """An item of the list of buckets. `tables` is a URL there; in the detail it is a list."""
    stage, _, name = shown.id.partition(".")
    return {
        "uri": f"{url}/v2/storage/buckets/{shown.id}",
        "id": shown.id,
        "name": name,
        "idBranch": 1,
        "displayName": name.removeprefix("c-"),
        "stage": stage,
        "description": shown.description,
        "backend": backend,
        "created": api_time(shown.created),
        "lastChangeDate": api_time(max(table.changed for table in tables)) if tables else None,
        "isReadOnly": False,
        "isMaintenance": False,
        "tables": f"{url}/v2/storage/buckets/{shown.id}/tables",
    }


def table(shown: Table, metadata: Metadata, url: str) -> dict[str, object]:
    """The table detail."""
    stage, _, bucket_name = shown.bucket.partition(".")
    full = shown.encoded(shown.default_shape())
    fields: dict[str, object] = {
        "uri": f"{url}/v2/storage/tables/{shown.id}",
        "id": shown.id,
        "name": shown.name,
        "displayName": shown.name,
        "transactional": False,
        "primaryKey": list(shown.primary_key),
        "created": api_time(shown.created),
        "lastImportDate": api_time(shown.changed),
        "lastChangeDate": api_time(shown.changed),
        "rowsCount": full.rows if shown.rows_said is None else shown.rows_said,
        "dataSizeBytes": full.csv_bytes,
        "isAlias": False,
        "isAliasable": True,
        "isTyped": shown.typed,
        "tableType": "table",
        "timestampType": "MANAGED",
        "columns": list(shown.columns),
        "metadata": _own({"KBC.description": shown.description} if shown.description else {}) + metadata.of(shown.id),
        # an empty one is a list (docs/keboola.md 2.2)
        "columnMetadata": _column_metadata(shown, metadata) or [],
        "bucket": {
            "id": shown.bucket,
            "name": bucket_name,
            "stage": stage,
            "displayName": bucket_name.removeprefix("c-"),
            "backend": shown.encoding.quoting,
            "isReadOnly": False,
            "isMaintenance": False,
            "hasExternalSchema": shown.external,
        },
    }
    if shown.typed:
        text = {"definition": {"type": "VARCHAR", "nullable": True}, "canBeFiltered": True}
        types = {name: hints.get("KBC.datatype.basetype") for name, hints in shown.hints.items()}
        columns = [{"name": name, "basetype": types.get(name) or "STRING"} | text for name in shown.columns]
        fields["definition"] = {"primaryKeysNames": list(shown.primary_key), "columns": columns}
    return fields


def _column_metadata(shown: Table, metadata: Metadata) -> dict[str, list[dict[str, object]]]:
    found = {name: _own(shown.hints.get(name, {})) + metadata.of(f"{shown.id}.{name}") for name in shown.columns}
    return {name: entries for name, entries in found.items() if entries}


def _own(values: Mapping[str, str]) -> list[dict[str, object]]:
    """Metadata that came with the table."""
    return [
        {"id": str(number), "key": key, "value": value, "provider": "user", "timestamp": "2026-01-01T00:00:00+0100"}
        for number, (key, value) in enumerate(values.items(), start=1)
    ]


def listed(detail: dict[str, object], included: set[str]) -> dict[str, object]:
    """A table detail as an item of a list: without what is not included (docs/keboola.md 2.3)."""
    optional = {"columns": "columns", "metadata": "metadata", "columnMetadata": "columnMetadata", "bucket": "buckets"}
    hidden = {name for name, asked in optional.items() if asked not in included} | {"definition"}
    return {name: value for name, value in detail.items() if name not in hidden}


def job(shown: Job, status: str, url: str, now: float) -> dict[str, object]:
    ended = status not in ("waiting", "processing")
    export = {"tableName": shown.table.name, "columns": list(shown.shape.columns), "gzipOutput": shown.shape.gzipped}
    fields: dict[str, object] = {
        "id": shown.id,
        "status": status,
        "url": f"{url}/v2/storage/jobs/{shown.id}",
        "tableId": shown.table.id,
        "operationName": "tableExport",
        "operationParams": {"export": export | {"limit": shown.shape.limit}, "queue": "main_fast"},
        "createdTime": api_time(shown.created),
        "startTime": None if status == "waiting" else api_time(shown.created),
        "endTime": api_time(now) if ended else None,
        "runId": shown.run_id,
        "results": {"file": {"id": shown.file_id}, "cacheHit": shown.cache_hit} if status == "success" else None,
        "creatorToken": {"id": "4711", "description": "sandbox"},
        "metrics": {"outCompressed": shown.shape.gzipped, "outBytes": 0, "outBytesUncompressed": 0},
    }
    if status == "error":
        fields["results"] = []
        fields["error"] = {
            "code": "storage.exportFailed",
            "message": f'The export of the table "{shown.table.id}" failed in the backend',
            "exceptionId": f"sandbox-connection-job-{shown.id}",
        }
    return fields


def file(shown: File, sliced: bool, url: str, provider: str, region: str) -> dict[str, object]:
    """The file detail, without location and credentials, whose form depends on the cloud (see `StoreStyle`)."""
    return {
        "id": shown.id,
        "created": api_time(shown.created),
        "isPublic": False,
        "isSliced": sliced,
        "isEncrypted": True,
        "name": shown.name,
        "fileType": "csv",
        "url": url,
        "provider": provider,
        "region": region,
        "sizeBytes": shown.size,
        "tags": list(TAGS),
        "maxAgeDays": 2,
        "runId": shown.run_ids[0] if shown.run_ids else None,
        "runIds": shown.run_ids,
        "creatorToken": {"id": 4711, "description": "sandbox"},
    }
