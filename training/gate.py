"""The gate between curation and training: data that nobody approved is not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reelmill.datasets.approval import check, manifest_digest
from reelmill.datasets.latents import LatentDataset
from reelmill.errors import DatasetError, GateError


def require_approval(data: LatentDataset, *, unreviewed: bool) -> Mapping[str, str]:
    """Who approved each of the shard folders that the latents were made from, by folder name.

    Raises GateError where nobody did, DatasetError where the shards have changed since they were
    encoded. With `unreviewed` it asks nothing and gives an empty mapping, which checkpoints record.
    """
    if unreviewed:
        return {}
    approvals = {}
    for name, digest in sorted(data.manifest.sources.items()):
        where = data.manifest.options.get("shards", {}).get(name)
        folder = (data.folder / str(where)).resolve() if where else Path(name)
        if not folder.is_dir():
            raise GateError(
                f"latent shards {data.folder} were made from {folder}, which is not there, so its "
                "approval cannot be checked. Bring it back, or say --unreviewed."
            )
        if manifest_digest(folder) != digest:
            raise DatasetError(
                f"shards {folder} have changed since {data.folder} was encoded from them. Encode "
                "again."
            )
        approval = check(folder)
        if approval is None:
            raise GateError(
                f"nobody approved shards {folder}. Look at the report and run `reelmill review "
                "approve RUN`, or say --unreviewed, which the checkpoint records."
            )
        approvals[name] = approval.reviewer
    return approvals
