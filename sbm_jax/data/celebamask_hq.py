"""CelebAMask-HQ: faces, hand-drawn masks of their parts and attributes, from the official files.

Reference: Lee, Liu, Wu, Luo: MaskGAN: Towards Diverse and Interactive Facial Image Manipulation. CVPR 2020.
https://arxiv.org/abs/1907.11922
"""

import contextlib
import functools
import hashlib
import io
import itertools
import pathlib
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sbm_jax import types
from sbm_jax.config import checked_dataclass
from sbm_jax.data import files
from sbm_jax.data.loader import Loader
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.progress import progress_bar
from sbm_jax.storage import DAMAGED_ARCHIVE, DAMAGED_ARRAY, user_path, write_atomically

ATTRIBUTES = (
    *("Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Bushy_Eyebrows", "Eyeglasses", "Gray_Hair"),
    *("Heavy_Makeup", "Male", "Mouth_Slightly_Open", "Mustache", "Pale_Skin", "Receding_Hairline", "Smiling"),
    *("Straight_Hair", "Wavy_Hair", "Wearing_Hat"),
)
"""The 18 of the 40 attributes that the papers use, in the order of a row's entries."""

SKIN = "skin"
PARTS = (
    *(SKIN, "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip", "l_lip"),
    *("hair", "hat", "ear_r", "neck_l", "neck", "cloth"),
)
"""The parts of a mask, one per file; `eye_g` stands for glasses, `ear_r` for earrings and `neck_l` for a necklace."""

_FIRST_HELD_OUT = (162_771, 182_638)
"""The CelebA images, by `orig_idx`, at which the validation and test splits begin.

These are the numbers in the official script, g_partition.py. They refer to file names, which CelebA numbers from 1,
while `orig_idx` starts at 0; the two images for which that matters are not in CelebAMask-HQ.
"""

_RECIPE = 1  # increment when the same files give other rows
_SPLITS = ("train", "validation", "test")
_FOLDER, _IMAGES, _MASKS = "CelebAMask-HQ", "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
_TABLE, _MAPPING = "CelebAMask-HQ-attribute-anno.txt", "CelebA-HQ-to-CelebA-mapping.txt"
_AGAIN = "Unpack the official archive again."
_SUFFIXES = (".jpg", ".jpeg", ".png")

# MARK: Options


@checked_dataclass
class CelebaMaskHqConfig:
    """30,000 faces in CelebA's official partition: 24,183 for training, 2,993 for validation, 2,824 for testing.

    | modality     | from                                        | rows are                                            |
    |--------------|---------------------------------------------|-----------------------------------------------------|
    | `image`      | `CelebA-HQ-img/{id}.jpg`, or `images`       | uint8 [size, size, 3]                               |
    | `mask`       | `CelebAMask-HQ-mask-anno/*/{id}_{part}.png` | uint8 [size, size, 1]: how much of each pixel is    |
    |              |                                             | covered by parts other than skin; 255 is all of it  |
    | `attributes` | `CelebAMask-HQ-attribute-anno.txt`          | float32 [18], 0 or 1, in the order of `ATTRIBUTES`  |

    Rows are in the order of their official ids. A row without an image, or without any mask file, lacks that modality;
    rows with none of the requested modalities are left out.

    Larger files are shrunk with Pillow's box filter: each pixel is the mean of the pixels it covers, so masks have soft
    edges. The paper's code instead averages the four pixels nearest to the centre, which ignores 60 of 64 pixels when
    shrinking 1024x1024 to 128x128: for photographs shrunk by 8, the two differ by 15 of 255 (root mean square). Masks
    are nearly the same: 1,000 of 128x128, shrunk to 32x32 either way and rounded, have an F1 of 0.991.

    Attributes:
      directory: the unpacked official archive, `CelebAMask-HQ`, or its parent directory.
      images: a zip archive or directory of `{id}.jpg` to read instead of `CelebA-HQ-img`; "" for `CelebA-HQ-img`.
      size: side of images and masks, in pixels; files may be larger, but not smaller.
      max_train: number of training rows to use, the first by id; None for all.
      max_test: likewise for validation and for test.
    """

    directory: str = ""
    images: str = ""
    size: int = 128
    max_train: int | None = None
    max_test: int | None = None

    def __post_init__(self):
        require(self.size >= 1, "data.celebamask_hq.size", self.size, "1 pixel or more")
        for name in ("max_train", "max_test"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"data.celebamask_hq.{name}", value, "1 or more, or None for all")


# MARK: Loading


def load_celebamask_hq(
    config: CelebaMaskHqConfig, cache_dir: pathlib.Path, names: Sequence[str] | None = None
) -> types.Dataset:
    """Load the data set.

    Args:
      config: where the files are, and which rows to use.
      cache_dir: directory of decoded images and masks, kept as arrays. They are decoded again when the names or sizes
        of their files change, or, in an archive, their checksums.
      names: names of the modalities; None for all. Files of other modalities are not read.

    Raises:
      SbmError: if a file is missing, damaged, not square or smaller than `size`, or a split has no rows.
    """
    with contextlib.ExitStack() as held:
        root, sources = _open(config, names, held)
        splits, digests = {}, {}
        for split, ids in _ids(root / _MAPPING, config, sources).items():
            splits[split], digests[split] = _read(sources, ids, cache_dir, split)
        digests["split"] = files.content_digest([root / _MAPPING])
    options = {name: getattr(config, name) for name in ("size", "max_train", "max_test")}
    settings = {"recipe": _RECIPE, "digests": digests, **options}
    return types.Dataset(**splits, num_classes={}, settings=settings)


def row_ids(config: CelebaMaskHqConfig, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Return {split: official ids of its rows, int [N]}, in the order in which rows are loaded.

    Args:
      config: as for `load_celebamask_hq`.
      names: as for `load_celebamask_hq`.

    Raises:
      SbmError: as `load_celebamask_hq` does, except for images that are damaged or have the wrong size.
    """
    with contextlib.ExitStack() as held:
        root, sources = _open(config, names, held)
        return _ids(root / _MAPPING, config, sources)


class Source(NamedTuple):
    """The source of a modality's rows.

    Attributes:
      items: {id: argument of `read` and `digest`} for all rows that have the modality.
      shape: shape of a row.
      dtype: type of its values.
      read: `item -> row`.
      digest: `items -> str`, a digest of their content.
      is_kept: whether the cache keeps rows once they are read.
    """

    items: Mapping[int, Any]
    shape: tuple[int, ...]
    dtype: type
    read: Callable[[Any], np.ndarray]
    digest: Callable[[Sequence[Any]], str]
    is_kept: bool = True

    def has(self, ids: np.ndarray) -> np.ndarray:
        """Return whether each row has the modality, bool [N]."""
        return np.array([number in self.items for number in ids.tolist()], bool)


def _open(
    config: CelebaMaskHqConfig, names: Sequence[str] | None, held: contextlib.ExitStack
) -> tuple[pathlib.Path, dict[str, Source]]:
    """Return the directory of the official files and each modality's source, usable while `held` is open."""
    for name in names or ():
        if name not in SOURCES:
            raise unknown("modality of CelebAMask-HQ:", name, SOURCES)
    root = files.directory(config.directory, f"the official archive, {_FOLDER}", "data.celebamask_hq.directory")
    root = root / _FOLDER if (root / _FOLDER).is_dir() else root
    return root, {name: SOURCES[name](root, config, held) for name in names or SOURCES}


def _read(
    sources: Mapping[str, Source], ids: np.ndarray, cache_dir: pathlib.Path, split: str
) -> tuple[types.Split, dict[str, str]]:
    """Return the rows of `ids`, with zeros where a modality is missing, and a digest of each modality's files."""
    data, present, digests = {}, {}, {}
    for name, source in sources.items():
        present[name] = source.has(ids)
        items = [source.items[number] for number in ids[present[name]].tolist()]
        digests[name] = source.digest(items)
        data[name] = np.zeros((len(ids), *source.shape), source.dtype)  # uses no memory until written to
        if items and source.is_kept:
            path = cache_dir / "celebamask_hq" / f"{name}_{source.shape[0]}_{_RECIPE}_{digests[name]}.npy"
            data[name][present[name]] = _kept(path, source, items, f"prepare {split} {name}")
        elif items:
            data[name][present[name]] = [source.read(item) for item in items]
    complete = all(has.all() for has in present.values())
    return types.Split(data, present=None if complete else present), digests


def _kept(path: pathlib.Path, source: Source, items: Sequence[Any], label: str) -> np.ndarray:
    """Return rows [K, *shape] from the cache, after writing them there if they are missing."""
    if not path.exists():
        write_atomically(path, _npy(source, items, label))
    expected = (np.dtype(source.dtype), (len(items), *source.shape))
    try:
        rows = np.lib.format.open_memmap(path, mode="r")
        if (rows.dtype, rows.shape) != expected:
            raise ValueError(f"it has {rows.dtype} {list(rows.shape)} instead of {expected[0]} {list(expected[1])}")
    except (OSError, *DAMAGED_ARRAY) as error:
        raise SbmError(f"{path}, prepared before, is damaged: {error}. Remove it; it will be made again.") from error
    return rows


def _npy(source: Source, items: Sequence[Any], label: str) -> Iterator[bytes]:
    """Yield the parts of a .npy file of rows, holding one row in memory at a time."""
    header, descr = io.BytesIO(), np.lib.format.dtype_to_descr(np.dtype(source.dtype))
    described = {"shape": (len(items), *source.shape), "fortran_order": False, "descr": descr}
    np.lib.format.write_array_header_1_0(header, described)
    yield header.getvalue()
    with progress_bar(label, len(items), "rows") as advance:
        for item in items:
            yield source.read(item).tobytes()
            advance(1)


# MARK: Which rows

_NUMBER = re.compile(r"[0-9]{1,9}")


def _ids(mapping: pathlib.Path, config: CelebaMaskHqConfig, sources: Mapping[str, Source]) -> dict[str, np.ndarray]:
    """Return {split: sorted ids of its rows, int [N]}."""
    number_of = _official_split(mapping)
    for name, source in sources.items():
        strange = sorted(source.items.keys() - number_of.keys())
        if strange:
            raise SbmError(
                f"{mapping} has no line for row {strange[0]}, which has the modality {name!r} ({len(strange)} such "
                f"rows). {_AGAIN}"
            )
    found = {}
    for number, split in enumerate(_SPLITS):
        ids = np.array(sorted(row for row, own in number_of.items() if own == number), int)
        ids = ids[np.any([source.has(ids) for source in sources.values()], axis=0)]
        found[split] = ids[: config.max_train if split == "train" else config.max_test]
        if not len(ids):
            wanted = f"any of {', '.join(sources)}"
            raise SbmError(f"{mapping.parent} has no {split} row with {wanted}; expected some. Add files.")
    return found


def _official_split(path: pathlib.Path) -> dict[int, int]:
    """Return {id: index of its split in `_SPLITS`} for all rows."""
    found: dict[int, int] = {}
    for line in _lines(path)[1:]:
        fields = line.split()
        if len(fields) != 3 or not all(map(_NUMBER.fullmatch, fields[:2])) or int(fields[0]) in found:
            raise SbmError(
                f"{path} has the line {line!r:.80}; expected idx, orig_idx and orig_file, once for each idx. {_AGAIN}"
            )
        found[int(fields[0])] = int(np.searchsorted(_FIRST_HELD_OUT, int(fields[1]), side="right"))
    return found


def _lines(path: pathlib.Path) -> list[str]:
    """Return the non-empty lines of a text file."""
    try:
        return [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise SbmError(f"{path} does not exist; expected a file of the official archive. Put it there.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SbmError(f"{path} cannot be read as text: {error}. {_AGAIN}") from error


# MARK: Images


def _images(root: pathlib.Path, config: CelebaMaskHqConfig, held: contextlib.ExitStack) -> Source:
    """Return the source of images in a directory, or in a zip archive that stays open while `held` is."""
    path = user_path(config.images, "data.celebamask_hq.images") if config.images else root / _IMAGES
    shape = (config.size, config.size, 3)
    if path.is_dir():
        items = _by_id(path, {file.name: file for file in files.listing(path, _SUFFIXES)})
        digest = functools.partial(files.listing_digest, path)
        return Source(items, shape, np.uint8, functools.partial(_image, config.size), digest)
    if not config.images:
        raise SbmError(
            f"{path} is not a directory; expected images, such as 0.jpg. Put them there, or leave images out."
        )
    archive = held.enter_context(_opened(path))
    named = {member.filename: member for member in archive.infolist() if _is_image(member)}
    read = functools.partial(_member, config.size, archive)
    return Source(_by_id(path, named), shape, np.uint8, read, _digest_of_members)


def _by_id(where: pathlib.Path, named: Mapping[str, Any]) -> dict[int, Any]:
    """Return {id: item} from {file name: item}."""
    found: dict[int, str] = {}
    for name in named:
        stem = pathlib.PurePosixPath(name).stem
        if not _NUMBER.fullmatch(stem):
            raise SbmError(f"{where / name} is not named by a number; expected its row's id, as in 0.jpg. Remove it.")
        if int(stem) in found:
            raise SbmError(f"{where} has {found[int(stem)]} and {name} for one row; expected one file. Remove one.")
        found[int(stem)] = name
    if not found:
        raise SbmError(f"{where} has no images; expected some, such as 0.jpg. Put them there.")
    return {number: named[name] for number, name in found.items()}


def _image(size: int, path: pathlib.Path, content: bytes | None = None) -> np.ndarray:
    """Read an image, uint8 [size, size, 3]."""
    pixels, _ = files.rgb_image(path, "Fetch it again.", content)
    return _shrunk(pixels, size, path)


def _shrunk(pixels: np.ndarray, size: int, path: pathlib.Path) -> np.ndarray:
    """Shrink square pixels, uint8 [H, H, ...], to [size, size, ...]."""
    height, width = pixels.shape[:2]
    if height != width or height < size:
        raise SbmError(
            f"{path} is {width}x{height}; expected a square of {size}x{size} pixels or more. Lower "
            "data.celebamask_hq.size, or fetch the file again."
        )
    if height == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX))


def _opened(path: pathlib.Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, *DAMAGED_ARCHIVE) as error:
        raise SbmError(
            f"data.celebamask_hq.images: {path} cannot be read: {error}. Expected a zip archive of images, such as "
            "0.jpg, or a directory of them. Fetch it again, or fix the path."
        ) from error


def _is_image(member: zipfile.ZipInfo) -> bool:
    path = pathlib.PurePosixPath(member.filename)
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and not member.is_dir()


def _member(size: int, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """Read an image of an archive, uint8 [size, size, 3]."""
    path = pathlib.Path(archive.filename) / member.filename
    try:
        content = archive.read(member)
    except (OSError, *DAMAGED_ARCHIVE) as error:
        raise SbmError(f"{path} cannot be read: {error}. Fetch the archive again.") from error
    return _image(size, path, content)


def _digest_of_members(members: Sequence[zipfile.ZipInfo]) -> str:
    """Return a digest of the names, sizes and checksums of an archive's members."""
    listed = "".join(f"{member.filename}\0{member.file_size}\0{member.CRC}\0" for member in members)
    return hashlib.sha256(listed.encode()).hexdigest()[:16]


# MARK: Masks


def _masks(root: pathlib.Path, config: CelebaMaskHqConfig, held: contextlib.ExitStack) -> Source:
    """Return the source of masks, which have one file per part; skin is not part of the mask."""
    del held
    where = root / _MASKS
    if not where.is_dir():
        raise SbmError(
            f"{where} is not a directory; expected parts of masks, such as 0/00000_hair.png. Put them there, or leave "
            "masks out."
        )
    items: dict[int, dict[str, pathlib.Path]] = {}
    for folder in sorted(path for path in where.iterdir() if path.is_dir()):
        for path in files.listing(folder, (".png",)):
            number, _, part = path.stem.partition("_")
            if not _NUMBER.fullmatch(number) or part not in PARTS:
                raise SbmError(
                    f"{path} is not part of a mask; expected <id>_<part>.png, <part> one of {', '.join(PARTS)}. Remove "
                    "it."
                )
            own = items.setdefault(int(number), {})
            if part in own:
                raise SbmError(f"{own[part]} and {path} show the same part; expected one file. Remove one.")
            own[part] = path
    if not items:
        raise SbmError(f"{where} has no files in folders; expected parts of masks, such as 0/00000_hair.png. {_AGAIN}")
    for own in items.values():
        if own.keys() == {SKIN}:
            raise SbmError(f"{own[SKIN]} is the only part of its mask; expected other parts too. {_AGAIN}")
    counted = {number: [own[part] for part in PARTS if part in own and part != SKIN] for number, own in items.items()}

    def digest(rows: Sequence[Sequence[pathlib.Path]]) -> str:
        return files.listing_digest(where, itertools.chain.from_iterable(rows))

    return Source(counted, (config.size, config.size, 1), np.uint8, functools.partial(_mask, config.size), digest)


def _mask(size: int, paths: Sequence[pathlib.Path]) -> np.ndarray:
    """Read the union of a mask's parts, uint8 [size, size, 1]."""
    union = None
    for path in paths:
        part = files.rgb_image(path, _AGAIN)[0][..., 0] != 0
        if union is not None and part.shape != union.shape:
            raise SbmError(
                f"{path} is {part.shape[1]}x{part.shape[0]}, and {paths[0].name} {union.shape[1]}x{union.shape[0]}; "
                f"expected parts of the same size. {_AGAIN}"
            )
        union = part if union is None else union | part
    return _shrunk(union * np.uint8(255), size, paths[0])[..., None]


# MARK: Attributes

_SIGNS = {"1": 1.0, "-1": 0.0}


def _attributes(root: pathlib.Path, config: CelebaMaskHqConfig, held: contextlib.ExitStack) -> Source:
    del config, held
    items = _read_attributes(root / _TABLE)

    def digest(rows: Sequence[np.ndarray]) -> str:
        return hashlib.sha256(np.array(rows).tobytes()).hexdigest()[:16]

    return Source(items, (len(ATTRIBUTES),), np.float32, lambda row: row, digest, is_kept=False)


def _read_attributes(path: pathlib.Path) -> dict[int, np.ndarray]:
    """Return {id: attributes, float32 [18]}."""
    expected = "the number of rows, the names of the attributes, and lines of <id>.jpg with 1 or -1 for each of them"
    lines = [line.split() for line in _lines(path)]
    if len(lines) < 3 or lines[0] != [str(len(lines) - 2)]:
        raise SbmError(f"{path} begins with {lines[:1]}, and has {len(lines)} lines; expected {expected}. {_AGAIN}")
    names = lines[1]
    lacking = [name for name in ATTRIBUTES if name not in names]
    if lacking:
        raise SbmError(f"{path} has no attribute {lacking[0]!r}; expected {expected}. {_AGAIN}")
    columns = [names.index(name) + 1 for name in ATTRIBUTES]
    found: dict[int, np.ndarray] = {}
    for line in lines[2:]:
        number, _, suffix = line[0].partition(".")
        is_row = len(line) == len(names) + 1 and suffix == "jpg" and _NUMBER.fullmatch(number)
        if not is_row or int(number) in found or not _SIGNS.keys() >= {*line[1:]}:
            raise SbmError(f"{path} has the line {' '.join(line)!r:.80}; expected {expected}, each once. {_AGAIN}")
        found[int(number)] = np.array([_SIGNS[line[column]] for column in columns], np.float32)
    return found


SOURCES: dict[str, Callable[[pathlib.Path, CelebaMaskHqConfig, contextlib.ExitStack], Source]] = {
    "image": _images,
    "mask": _masks,
    "attributes": _attributes,
}
"""Finds the files of each modality: `(directory, options, stack of open archives) -> source`."""

DATASET = Loader(CelebaMaskHqConfig, load_celebamask_hq)
