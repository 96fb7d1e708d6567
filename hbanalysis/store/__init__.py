"""Rows and checkpoints on disk: found by the hash of what they are, with where they come from."""

from hbanalysis.store.rows import (
    PUBLISHED_VARIABLE,
    SCHEMA,
    SCHEMAS,
    STORE_VARIABLE,
    PublishedRows,
    Row,
    Store,
    default_store,
    finite,
    plain_name,
    publish,
    published,
    row_key,
)

__all__ = [
    "PUBLISHED_VARIABLE",
    "SCHEMA",
    "SCHEMAS",
    "STORE_VARIABLE",
    "PublishedRows",
    "Row",
    "Store",
    "default_store",
    "finite",
    "plain_name",
    "publish",
    "published",
    "row_key",
]
