"""Data on disk: the rows, batches and trained parameters that the same rows in memory give, and what is refused."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax import data, parallel
from sbm_jax.config import build
from sbm_jax.data import write_records as command
from sbm_jax.data.pipeline import batch_rows, in_units
from sbm_jax.data.records import RecordSplit
from sbm_jax.data.write_records import write_records
from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.rows import ArrayRows, as_rows, read_ahead
from sbm_jax.systems.classifier import ClassifierConfig, Classifiers
from sbm_jax.systems.latents import encode_rows
from sbm_jax.systems.unimodal import AutoencoderConfig, LatentSpace
from sbm_jax.training import loop
from sbm_jax.training.stages import run_stages
from sbm_jax.types import FormatConfig, Modality, OptimizerConfig, TrainingConfig

MODALITIES = (Modality("photo", (4, 4, 3), 6, "mlp"), Modality("sound", (5,), 3, "mlp", bounds=(-1.0, 1.0)))
IDS = Modality("sound", (5,), 3, "tokens", "categorical", vocabulary_size=7)
NAMES = ("photo", "sound")
NUM_ROWS = {"train": 41, "validation": 11, "test": 9}


def arrays(split, **changes):
    """Return the rows of a split under the names that they have in an archive."""
    num, rng = NUM_ROWS[split], np.random.default_rng(len(split))
    made = {
        "photo": rng.integers(0, 256, (num, 4, 4, 3), dtype=np.uint8),
        "sound": rng.uniform(-1, 1, (num, 5)),
        "other": rng.integers(-9, 9, (num, 2, 1)),
        "label": 2 * (np.arange(num) % 3),
    }
    if split != "test":
        made["sound.present"] = np.arange(num) % 4 != 1
    return made | changes


def write(root, chunk=10, **changes):
    for split, num in NUM_ROWS.items():
        made = arrays(split, **changes.get(split, {}))
        chunks = ({key: array[i : i + chunk] for key, array in made.items()} for i in range(0, num, chunk))
        write_records(root, split, chunks)


def load(root, kind="records", names=NAMES, **options):
    config = build(data.DataConfig, {"name": kind, kind: {"directory": str(root)}, **options})
    return data.load(config, root, names)


@pytest.fixture
def both(tmp_path, monkeypatch):
    """The same data set in memory and on disk, where it has several files."""
    monkeypatch.setattr(command, "SHARD_BYTES", 1000)
    write(tmp_path / "records")
    (tmp_path / "arrays").mkdir()
    for split in NUM_ROWS:
        np.savez(tmp_path / "arrays" / f"{split}.npz", **arrays(split))
    assert len(list((tmp_path / "records").glob("train-*"))) > 2
    return tuple(data.check(load(tmp_path / kind, kind), MODALITIES) for kind in ("arrays", "records"))


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_rows_are_those_in_memory(both):
    memory, disk = both
    assert memory.num_classes == disk.num_classes
    for name in NUM_ROWS:
        one, other = getattr(memory, name), getattr(disk, name)
        assert isinstance(other, RecordSplit)
        assert len(one) == len(other)
        some = np.array([7, 0, 7, len(one) - 1])
        for field in ("data", "labels", "present"):
            assert_same(getattr(one.take(some), field), getattr(other.take(some), field))
        rows = [as_rows(split.rows(("sound", "photo"), label=split.labels)) for split in (one, other)]
        assert_same(rows[0].take(some), rows[1].take(some))
        for index in (3, slice(2, 5), np.arange(len(one)) % 2 == 0):
            assert_same(one.data["sound"][index], other.data["sound"][index])
        assert {name: (array.shape, array.dtype) for name, array in one.data.items()} == {
            name: (array.shape, array.dtype) for name, array in other.data.items()
        }


def test_hidden_modalities_are_those_in_memory(both, tmp_path):
    one, other = (data.with_missing(load(tmp_path / kind, kind), 0.4).train for kind in ("arrays", "records"))
    assert_same(one.present, other.present)
    assert_same(as_rows(one.rows(NAMES)).take(np.arange(9)), other.rows(NAMES).take(np.arange(9)))


def test_batches_of_a_step_are_those_in_memory(both):
    feeds = [parallel.Feed(split.train.rows(NAMES), parallel.data_mesh()) for split in both]
    assert [feed.on_host for feed in feeds] == [False, True]

    def order(number):
        return batch_rows(41, 8, 3, 5 + 4 * number, 4)

    seen = 0
    for one, other in zip(*(feed.read(6, order) for feed in feeds), strict=True):
        for k in range(4):
            batches = [
                feed.batch(rows, jax.tree.map(lambda array, k=k: array[k], parts))
                for feed, (rows, parts) in zip(feeds, (one, other), strict=True)
            ]
            assert_same(*batches)
            seen += len(batches[1]["present"])
    assert seen == 6 * 4 * 8


def _stages(dataset):
    training = TrainingConfig(12, 8, OptimizerConfig(ema_decay=0.9), 2, checkpoint_every=4, validate_every=6)
    space = LatentSpace(MODALITIES, AutoencoderConfig(training, AutoencoderNetworkConfig((16,), dtype="float32")))
    judge = Classifiers(MODALITIES, {"label": 3}, ClassifierConfig(training, hidden=8))
    return [*space.stages(dataset), judge.stage(dataset)]


def _losses(workdir):
    """Return what was written of all stages, but for their times."""
    files = sorted((workdir / "metrics").glob("autoencoder*.jsonl"))
    assert files
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [row for row in rows if row["split"] != "time"]


@pytest.mark.slow
def test_training_gives_the_bits_of_rows_on_the_host(both, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "_device_memory", lambda mesh: 1.0)
    memory, disk = (run_stages(_stages(d), tmp_path / str(i), 0) for i, d in enumerate(both))
    assert_same(memory, disk)
    losses = [_losses(tmp_path / str(i)) for i in (0, 1)]
    assert losses[0] == losses[1]
    assert {row["split"] for row in losses[0]} == {"train", "validation"}


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_bits(both, tmp_path, monkeypatch):
    whole = run_stages(_stages(both[1]), tmp_path / "whole", 0)
    write_metrics = loop._write

    def dies_at_eight(writer, stage, state, pending):
        if pending and pending[0] == 8 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            raise KeyboardInterrupt
        write_metrics(writer, stage, state, pending)

    monkeypatch.setattr(loop, "_write", dies_at_eight)
    with pytest.raises(KeyboardInterrupt):
        run_stages(_stages(both[1]), tmp_path / "killed", 0)
    assert_same(run_stages(_stages(load(tmp_path / "records")), tmp_path / "killed", 0), whole)


def test_the_bank_of_latents_is_that_of_rows_in_memory(both):
    made = [
        encode_rows(lambda scale, rows: scale * in_units(rows["data"])["photo"], 2.0, split.train.rows(NAMES), 8)
        for split in both
    ]
    assert_same(*made)
    assert len(made[0]) == 41


@pytest.mark.parametrize("processes", [2, 4])
def test_the_shares_of_processes_are_disjoint_and_complete(processes):
    mesh = parallel.data_mesh()
    count = max(mesh.size // processes, 1)
    groups = [mesh.devices[i : i + count] for i in range(0, mesh.size, count)]
    shares = [parallel.share(8, mesh, list(group)) for group in groups]
    assert {len(share) for share in shares} == {8 // len(groups)}
    np.testing.assert_array_equal(np.concatenate(shares), np.arange(8))
    if mesh.size > 1:
        np.testing.assert_array_equal(parallel.share(7, mesh, list(groups[0])), np.arange(7))


def test_parts_are_read_ahead_in_order():
    asked = []

    def make(number):
        asked.append(number)
        return {"x": np.full(2, number)}

    parts = read_ahead(make, 50, 1)
    assert next(parts)["x"][0] == 0
    assert [int(part["x"][0]) for part in parts] == list(range(1, 50))
    assert sorted(asked) == list(range(50))


def test_rows_that_are_not_read_any_more_are_not_made():
    made = []
    parts = read_ahead(lambda number: made.append(number) or np.zeros(1), 10_000, 1)
    next(parts)
    parts.close()
    count = len(made)
    assert count < 100
    assert len(made) == count


def test_the_fingerprint_is_that_of_the_content(tmp_path):
    write(tmp_path / "one", chunk=41)
    write(tmp_path / "two", chunk=7)
    write(tmp_path / "other", train={"label": 2 * (np.arange(1, 42) % 3)})
    one, two, other = (load(tmp_path / name).settings["digests"] for name in ("one", "two", "other"))
    assert one == two
    assert {name for name in one if one[name] != other[name]} == {"train"}


def _flip(content):
    """Change a byte of the first row, behind two headers."""
    content = bytearray(content)
    content[200] ^= 255
    return bytes(content)


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("train-00001.array_record", None, r"train-00001\.array_record does not exist; train.json expects a file of"),
        ("test-00000.array_record", lambda content: content[:-1], r"test-00000\.array_record has .* bytes"),
        ("train-00000.array_record", _flip, r"train-00000\.array_record cannot be read"),
        ("validation.json", None, r"validation\.json does not exist; expected train\.json"),
        ("validation.json", lambda content: content[:99], r"validation\.json cannot be read"),
        ("test.json", lambda content: b"{}", r"test\.json\.columns is missing"),
        ("test.json", lambda content: content.replace(b'"form": 1', b'"form": 2'), r"test\.json is not a description"),
        ("test.json", lambda content: content.replace(b'"uint8"', b'"int32"'), r"test\.json has .*; expected the mod"),
        ("train.npz", lambda content: content[:50], r"train\.npz cannot be read"),
        ("train.npz", None, r"train\.npz cannot be read"),
    ],
)
def test_damaged_files_are_named(both, tmp_path, file, damage, message):
    path = tmp_path / "records" / file
    content = path.read_bytes()
    path.unlink()
    if damage is not None:
        path.write_bytes(damage(content))
    with pytest.raises(SbmError, match=message):
        load(tmp_path / "records").train.rows(NAMES).take(np.arange(41))


def test_damage_is_told_by_a_run(both, tmp_path):
    path = tmp_path / "records" / "train-00001.array_record"
    path.write_bytes(_flip(path.read_bytes()))
    with pytest.raises(SbmError, match=r"train-00001\.array_record cannot be read"):
        run_stages(_stages(load(tmp_path / "records")), tmp_path / "run", 0)


@pytest.mark.parametrize(
    ("changes", "modality", "message"),
    [
        ({}, dataclasses.replace(MODALITIES[0], shape=(4, 4)), r"'train/photo' has the shape \['N', 4, 4, 3\]; exp"),
        ({}, dataclasses.replace(MODALITIES[0], bounds=(0.0, 2.0)), r"'train/photo' is uint8, which stands for"),
        ({"photo": np.eye(48, dtype=np.uint8)[:41].reshape(41, 4, 4, 3)}, MODALITIES[0], "no value above 1"),
        ({"sound": np.full((41, 5), 1.5)}, MODALITIES[1], r"'train/sound' has values from 1\.5 to 1\.5"),
        ({"sound": np.full((41, 5), 0.3)}, Modality("sound", (5,), 2, "mlp", "categorical"), "sum to 1.5"),
        ({"sound.present": np.zeros(41, bool)}, MODALITIES[1], "no row of the train split has modality 'sound'"),
        ({}, dataclasses.replace(MODALITIES[1], format=FormatConfig("standardized")), "on disk, where nothing is conv"),
        ({}, dataclasses.replace(MODALITIES[1], format=FormatConfig("binary")), "on disk, where nothing is converted"),
        ({}, IDS, "float32; modality 'sound' expects integer ids"),
        ({}, Modality("light", (5,), 2, "mlp"), "unknown modality in the train split: 'light'"),
    ],
)
def test_values_that_modalities_do_not_allow_are_refused(tmp_path, changes, modality, message):
    write(tmp_path, train=changes)
    with pytest.raises(SbmError, match=message):
        data.check(load(tmp_path), [modality])


def test_values_that_leave_the_bounds_by_rounding_are_brought_to_them(tmp_path):
    sound = arrays("train")["sound"]
    sound[4, 2] = 1.000001
    write(tmp_path, train={"sound": sound})
    checked = data.check(load(tmp_path), MODALITIES).train
    values = checked.rows(NAMES).take(np.arange(41))["data"]["sound"]
    assert values.dtype == np.float32
    assert values.max() == 1.0
    np.testing.assert_array_equal(values, np.clip(sound.astype(np.float32), -1, 1))


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_ids_stay_integers_and_all_other_integers_become_floats(tmp_path, kind):
    changes = {split: {"sound": np.tile([3, 6, 1, 0, 0], (num, 1)).astype(kind)} for split, num in NUM_ROWS.items()}
    write(tmp_path, **changes)
    other = Modality("other", (2, 1), 2, "mlp")
    split = data.check(load(tmp_path, names=("sound", "other")), [IDS, other]).train
    taken = split.rows(("sound", "other")).take(np.arange(3))["data"]
    assert taken["sound"].dtype == np.int32
    np.testing.assert_array_equal(taken["sound"], changes["train"]["sound"][:3])
    assert taken["other"].dtype == np.float32
    np.testing.assert_array_equal(taken["other"], arrays("train")["other"][:3])
    with pytest.raises(SbmError, match=r"has the id 6; modality 'sound' expects 0 \(padding\) to 5"):
        data.check(load(tmp_path), [dataclasses.replace(IDS, vocabulary_size=6)])


def test_yes_and_no_become_numbers_and_strings_are_refused(tmp_path):
    sound = {split: {"sound": np.tile([True, False, True, False, False], (n, 1))} for split, n in NUM_ROWS.items()}
    write(tmp_path / "yes", **sound)
    split = data.check(load(tmp_path / "yes"), MODALITIES).train
    np.testing.assert_array_equal(split.read(("sound",), np.arange(2))["sound"], [[1, 0, 1, 0, 0]] * 2)
    with pytest.raises(SbmError, match="'sound' has strings; records hold numbers"):
        write_records(tmp_path / "text", "train", [{"sound": np.array(["a", "b"])}])


def test_constant_data_are_told(tmp_path, caplog):
    write(tmp_path, train={"sound": np.full((41, 5), 0.3)})
    data.check(load(tmp_path), MODALITIES)
    assert "data 'train/sound': all rows are equal" in caplog.text


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"sound": np.full((41, 5), np.nan)}, "part 1 of train: sound has NaN"),
        ({"sound": np.zeros((41, 4))}, "expected all to match the first"),
        ({"photo": np.zeros((41, 4, 4, 3))}, "expected all to match the first"),
        ({"label": np.zeros(41)}, "part 1 of train: label is float64"),
        ({"sound": np.zeros((40, 5))}, "part 1 of train: sound has the shape"),
    ],
)
def test_parts_that_do_not_fit_are_refused_and_leave_no_data_set(tmp_path, second, message):
    with pytest.raises(SbmError, match=message):
        write_records(tmp_path, "train", [arrays("train"), arrays("train", **second)])
    assert not (tmp_path / "train.json").exists()
    write_records(tmp_path, "train", [arrays("train")])  # over what is left of it
    with pytest.raises(SbmError, match=r"train\.json exists"):
        write_records(tmp_path, "train", [arrays("train")])
    with pytest.raises(SbmError, match="there are no rows"):
        write_records(tmp_path, "test", [])


def test_modalities_are_read_by_name(tmp_path):
    write(tmp_path)
    assert list(load(tmp_path, names=("other",)).train.data) == ["other"]
    assert load(tmp_path, names=("other",)).train.present is None
    assert load(tmp_path, names=None).train.data.keys() == {"photo", "sound", "other"}
    with pytest.raises(SbmError, match=r"unknown modality in .*train\.json: 'sounds'\. Did you mean 'sound'"):
        load(tmp_path, names=("sounds",))


def test_the_command_writes_what_is_in_npy_files(both, tmp_path, capsys):
    for split in NUM_ROWS:
        (tmp_path / "npy" / split).mkdir(parents=True)
        for name, array in arrays(split).items():
            np.save(tmp_path / "npy" / split / f"{name}.npy", array)
    command.main([str(tmp_path / "npy"), str(tmp_path / "written")])
    one, other = (load(tmp_path / name).train for name in ("written", "records"))
    assert_same(one.rows(NAMES).take(np.arange(41)), other.rows(NAMES).take(np.arange(41)))
    assert "write train: done, 41 rows" in capsys.readouterr().out
    np.save(tmp_path / "npy" / "test" / "label.npy", np.zeros(3, int))
    with pytest.raises(SystemExit, match=r"expected one or more \.npy files with the same number"):
        command.main([str(tmp_path / "npy"), str(tmp_path / "again")])


def test_arrays_are_rows_in_memory():
    rows = as_rows({"x": jnp.arange(6.0)})
    assert isinstance(rows, ArrayRows)
    assert as_rows(rows) is rows
    assert len(rows) == 6
    np.testing.assert_array_equal(rows.take(np.array([4, 1]))["x"], [4.0, 1.0])
