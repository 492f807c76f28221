"""Wrong responses on purpose: what a run learns from them is a check of what the analysis says."""

import hashlib

import polars as pl


def add_label_noise(rows: pl.DataFrame, share: float, seed: int) -> pl.DataFrame:
    """Give a share of the rows the response of another row that has a different one.

    Which rows, and whose response, follows from a hash of ``seed`` and ``sample_id``, so it does not
    depend on the order of rows. Among few different responses the new one is drawn with their
    frequencies; with share 1 no row keeps its own.

    Args:
        rows: (sample_id, prompt, target), strings.
        share: 0 to 1; the number of rows that change is rounded.
        seed: of the draw.

    Returns:
        the rows in their order, with new ``target`` where they changed; ``sample_id`` stays.

    Raises:
        ValueError: all rows have the same response, or the share is less than half a row.
    """
    n_changed = round(share * len(rows))
    if share == 0:
        return rows
    if n_changed == 0:
        raise ValueError(
            f"label_noise: {share} of {len(rows)} training rows is less than half a row, and none would "
            "change; raise it, or drop it"
        )
    if rows["target"].n_unique() < 2:
        raise ValueError("label_noise: all responses are the same; drop it or add other rows")
    ordered = rows.sort("sample_id")
    by_hash = sorted(ordered["sample_id"], key=lambda sample: _hash(seed, "row", sample))
    changed = set(by_hash[:n_changed])
    targets = ordered["target"].to_list()
    noisy = {
        sample: _other_target(targets, own, _hash(seed, "target", sample))
        for sample, own in zip(ordered["sample_id"], targets, strict=True)
        if sample in changed
    }
    found = [noisy.get(sample, own) for sample, own in rows.select("sample_id", "target").rows()]
    return rows.with_columns(pl.Series("target", found, pl.String))


def _other_target(targets: list[str], own: str, number: int) -> str:
    start = number % len(targets)
    return next(target for target in [*targets[start:], *targets[:start]] if target != own)


def _hash(seed: int, purpose: str, sample: str) -> int:
    text = f"label_noise:{purpose}:{seed}:{sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
