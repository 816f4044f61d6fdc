"""The Storage API's JSON for a token, a bucket, a table, a job and a file (docs/keboola.md 1.5, 2.2, 5 and 6.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sandbox.store_access import Target
from sandbox.tables import Shape, Table, api_time


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


def bucket(bucket_id: str, tables: Sequence[Table], url: str) -> dict[str, object]:
    stage, _, name = bucket_id.partition(".")
    return {
        "uri": f"{url}/v2/storage/buckets/{bucket_id}",
        "id": bucket_id,
        "name": name,
        "displayName": name.removeprefix("c-"),
        "stage": stage,
        "description": "",
        "backend": tables[0].encoding.quoting,
        "created": api_time(min(table.created for table in tables)),
        "lastChangeDate": api_time(max(table.changed for table in tables)),
        "isReadOnly": False,
        "isMaintenance": False,
        "tables": f"{url}/v2/storage/buckets/{bucket_id}/tables",
    }


def table(shown: Table, url: str) -> dict[str, object]:
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
        "metadata": _metadata({"KBC.description": shown.description} if shown.description else {}),
        # an empty one is a list (docs/keboola.md 2.2)
        "columnMetadata": {name: _metadata(hints) for name, hints in shown.hints.items()} or [],
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


def _metadata(values: Mapping[str, str]) -> list[dict[str, object]]:
    return [
        {"id": str(number), "key": key, "value": value, "provider": "user", "timestamp": "2026-01-01T00:00:00+0100"}
        for number, (key, value) in enumerate(values.items(), start=1)
    ]


def listed(shown: Table, url: str, included: set[str]) -> dict[str, object]:
    """An item of a list of tables: without columns, metadata and bucket unless requested (docs/keboola.md 2.3)."""
    optional = {"columns": "columns", "metadata": "metadata", "columnMetadata": "columnMetadata", "bucket": "buckets"}
    hidden = {name for name, asked in optional.items() if asked not in included}
    return {name: value for name, value in table(shown, url).items() if name not in hidden}


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
        "tags": ["table-export"],
        "maxAgeDays": 2,
        "runId": shown.run_ids[0] if shown.run_ids else None,
        "runIds": shown.run_ids,
        "creatorToken": {"id": 4711, "description": "sandbox"},
    }
