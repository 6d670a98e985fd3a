"""Add the counts of two censuses of one model, on two shards of a corpus: python scripts/merge_censuses.py A B OUT"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])

from analyze.census.metadata import dead_bound
from analyze.census.ownership import owned
from analyze.config import Thresholds
from analyze.counts.layer import Index, LayerCounts
from analyze.counts.merge import merged_counts, merged_index
from analyze.neuron_types.position import bias
from analyze.pipeline import draw
from analyze.storage.census_files import TOKENIZER, checked, contents
from analyze.storage.formats import FORMAT, read_meta, write_meta
from analyze.storage.layer_files import about_layer, check_layers, layer_of
from analyze.tables.build import census_tables, write_tables
from corpora.sequences import Sequences
from errors import UserError, plainly
from models.json_files import entry
from paths import expanded
from settings import check_new_folder

NEEDED = (("keep_ngrams", "identity"), ("bos_id", "corpus"), ("domains", "corpus"))  # entries of meta.json, and where they stand


def merge(a: Path, b: Path, out: Path) -> None:
    """Write the census of both shards' sequences, those of `a` before those of `b` in every domain, into `out`.

    Raises:
        UserError: they are not censuses of the same model taken in the same way, or a sum would not be exact.
    """
    metas = [_meta(folder) for folder in (a, b)]
    taken = [_comparable(meta) for meta in metas]
    if differs := [f"{key} ({value}, {taken[1][key]})" for key, value in taken[0].items() if value != taken[1][key]]:
        raise UserError(f"{a} and {b} differ in {'; '.join(differs)}: only the corpora of two shards may differ.")
    layers = [sorted(file.name for file in (folder / "layers").glob("*.safetensors")) for folder in (a, b)]
    if layers[0] != layers[1]:
        raise UserError(f"{a} and {b} hold different layers; take both censuses of the same ones.")
    check_new_folder(out, or_empty=True)
    ia, ib = (Index.load(folder / "index.safetensors") for folder in (a, b))
    bos_id, keep = metas[0]["corpus"]["bos_id"], metas[0]["identity"]["keep_ngrams"]
    whole = merged_index(ia, ib, bos_id)
    names = [domain["name"] for domain in metas[0]["corpus"]["domains"]]
    sequences = Sequences(whole.ids, whole.domain, names, bos_id, None, None)
    meta = _merged_meta(metas, whole, sequences, [a, b])
    for name in layers[0]:
        ours, theirs = (LayerCounts.load(folder / "layers" / name) for folder in (a, b))
        merged = merged_counts(ours, theirs, ia, ib, whole, keep)
        merged.save(out / "layers" / name, about_layer(layer_of(Path(name)), meta["identity"]))
    vocabulary = len(whole.unigrams.occurrences)
    whole.save(out / "index.safetensors", {"corpus": f"{sequences.fingerprint}, {vocabulary} ids"})
    whole.corpus.save(out / "corpus.safetensors")
    if metas[0].get("tokenizer"):
        shutil.copyfile(checked(a, metas[0], TOKENIZER), out / TOKENIZER)
    write_tables(out, census_tables(out, whole, Thresholds.of(metas[0]["thresholds"])))
    write_meta(out, meta | contents(out))
    draw(out)


def _meta(folder: Path) -> dict[str, Any]:
    file = folder / "meta.json"
    found = read_meta(folder)
    check_layers(folder, found)
    parts = {name: entry(found, name, dict, file) for name in ("identity", "corpus", "thresholds")}
    if any(part is None for part in parts.values()):
        raise UserError(f"{folder} is no finished census; the command that began it goes on.")
    if lacking := [name for name, part in NEEDED if name not in parts[part]]:
        raise UserError(f"{file} lacks {lacking[0]}; copy the census again, or take it anew.")
    return found


def _comparable(meta: dict[str, Any]) -> dict[str, Any]:
    corpus = meta["corpus"]
    same = {key: value for key, value in meta["identity"].items() if key != "corpus"}
    return same | {"BOS id": corpus["bos_id"], "domains": [domain["name"] for domain in corpus["domains"]]}


def _merged_meta(metas: list[dict[str, Any]], whole: Index, sequences: Sequences, shards: list[Path]) -> dict[str, Any]:
    n_tokens = whole.corpus.n_tokens
    domains = [
        {"name": name, "sequences": int((whole.domain == number).sum())} for number, name in enumerate(sequences.domain_names)
    ]
    corpus = {
        "fingerprint": sequences.fingerprint,
        "n_tokens": n_tokens,
        "sequences": len(whole.ids),
        "domains": domains,
        "read": None,
    }
    return metas[0] | {
        "format": FORMAT,
        "identity": metas[0]["identity"] | {"corpus": sequences.fingerprint},
        "corpus": metas[0]["corpus"] | corpus,
        "dead_bound": dead_bound(n_tokens),
        "position_bias": bias(whole.corpus.seen_at.sum(0)),
        "merged": [str(shard) for shard in shards],
    }


def main() -> None:
    """Read the arguments and merge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("a", type=Path, help="census folder of the first shard")
    parser.add_argument("b", type=Path, help="census folder of the second shard")
    parser.add_argument("out", type=Path, help="new census folder")
    arguments = parser.parse_args()
    a, b, out = (Path(expanded(str(folder))) for folder in (arguments.a, arguments.b, arguments.out))
    with owned(out):
        merge(a, b, out)


if __name__ == "__main__":
    with plainly(after="remove the folder that it began, and the same command begins again"):
        main()
