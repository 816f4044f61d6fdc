"""The clouds in which Keboola keeps exports, by its names for them."""

from __future__ import annotations

from sandbox.store_access import MakeStore
from sandbox.store_gcs import GoogleStore
from tests.support.store_azure import AzureStore
from tests.support.store_s3 import S3Store

CLOUDS: dict[str, MakeStore] = {style.provider: style for style in (GoogleStore, S3Store, AzureStore)}
