"""Checkpoint files of all contenders: making them durable, and reading back what they hold."""

import io
import os
import pathlib
import zipfile
import zlib

import torch


def make_durable(path):
    """Bytes and name: fsync of the file, then of its folder. Of a folder, only the names in it."""
    for name in (path, path.parent):
        descriptor = os.open(name, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def tensors_of(tree):
    """All tensors of nested dicts and sequences."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from tensors_of(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from tensors_of(value)


def storages_of(tree):
    """The memory of all tensors, each piece once."""
    found = {tensor.data_ptr(): tensor.untyped_storage() for tensor in tensors_of(tree)}
    return {storage.data_ptr(): storage for storage in found.values()}.values()


def digests(tree):
    """What the tensors hold, whatever they are called: sorted CRC-32 of their memory."""
    return sorted(
        zlib.crc32(torch.empty(0, dtype=torch.uint8).set_(storage).numpy())
        for storage in storages_of(tree)
    )


def size(tree):
    return sum(storage.nbytes() for storage in storages_of(tree))


def check_archive(path, file):
    """torch.load() does not look at the checksums of the archive it reads. ValueError."""
    with zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
    if damaged:
        raise ValueError(f"{path}: {damaged} does not match its CRC-32")


def load(path):
    """The tensors of a checkpoint file, or of a folder of DCP's. Raises when it is damaged."""
    path = pathlib.Path(path)
    if path.is_dir():
        return load_distributed(path)
    check_archive(path, path)
    if path.suffix == ".pt":  # the archive of the C++ torch::save
        return list(torch.jit.load(path).parameters())
    content = torch.load(path, map_location="cpu", weights_only=False)
    model = content.get("state_dict", content.get("model"))
    optimizer = content.get("optimizer", content.get("optimizer_states"))
    return list(tensors_of([model, optimizer]))


def load_distributed(path):
    from torch.distributed import checkpoint

    reader = checkpoint.FileSystemReader(path)
    metadata = reader.read_metadata()
    for place in metadata.storage_data.values():  # an archive for each tensor and object
        with open(path / place.relative_path, "rb") as file:
            file.seek(place.offset)
            check_archive(path, io.BytesIO(file.read(place.length)))
    state = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in metadata.state_dict_metadata.items()
        if hasattr(entry, "size")
    }
    checkpoint.load(state, storage_reader=reader, no_dist=True)
    return list(state.values())
