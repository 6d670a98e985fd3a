"""census folder -> neurons.parquet, ngrams.parquet, layers.parquet and position_domains.parquet."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from analyze.config import Thresholds
from analyze.counts.layer import Index, LayerCounts
from analyze.neuron_types.logit_attribution import LayerWrites
from analyze.neuron_types.ngram_detectors import layer_detectors
from analyze.neuron_types.position_coverage import team_columns
from analyze.neuron_types.trigger_suppression import SHARES, suppressing_shares
from analyze.storage.tables import write_table
from analyze.tables.layers import layer_table
from analyze.tables.neurons import LayerFindings, neuron_table
from analyze.tables.ngrams import ngram_table
from analyze.tables.positions import position_domains


def census_tables(out: Path, rows: Index, thresholds: Thresholds) -> dict[str, pl.DataFrame]:
    """Compute neurons, ngrams, layers and position_domains from what is stored of every finished layer.

    Without what a layer writes to the logits (a folder added up from shards), the columns of suppression are left out.

    Raises:
        UserError: see `layer_detectors`.
    """
    corpus = rows.corpus
    of_neurons, of_ngrams, of_domains, of_teams, shares = [], [], [], [], []
    for file in finished_layers(out):
        layer, counts = int(file.stem.removeprefix("layer_")), LayerCounts.load(file)
        found = layer_detectors(counts, rows, thresholds)
        writes = LayerWrites.load(written) if (written := out / "writes" / file.name).exists() else None
        table = neuron_table(LayerFindings(layer, counts, corpus, found, thresholds, writes))
        if writes is not None:
            shares.append(suppressing_shares(table, writes, thresholds))
        of_neurons.append(table)
        of_domains.append(position_domains(table, counts.fired_at, corpus.seen_at, thresholds))
        of_teams.append(team_columns(table, counts.fired_at, corpus.seen_at, thresholds.positions))
        of_ngrams.append(ngram_table(layer, found, rows))
    neurons, ngrams = pl.concat(of_neurons), pl.concat(of_ngrams)
    layers = layer_table(neurons, ngrams, thresholds.positions).hstack(pl.concat(of_teams))
    if shares:
        layers = layers.with_columns(pl.from_dicts(shares, schema=dict.fromkeys(SHARES, pl.Float64)))
    return {"neurons": neurons, "ngrams": ngrams, "layers": layers, "position_domains": pl.concat(of_domains)}


def write_tables(out: Path, tables: Mapping[str, pl.DataFrame]) -> None:
    """Write `census_tables` under their names."""
    for name, table in tables.items():
        write_table(out / f"{name}.parquet", table)


def finished_layers(out: Path) -> list[Path]:
    """The count files of finished layers: those with a file of what they write too, or all of a folder that has none such."""
    counted, writes = sorted((out / "layers").glob("layer_*.safetensors")), out / "writes"
    return [file for file in counted if (writes / file.name).exists()] if writes.exists() else counted
