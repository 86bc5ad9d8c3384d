"""Reading a source, whatever it is."""

from __future__ import annotations

from pathlib import Path

from tasks.core.config.params import IngestParams
from tasks.core.data import documents
from tasks.core.data.image_samples import read_images
from tasks.core.data.samples import Samples
from tasks.core.data.text_samples import read_texts


def read_samples(params: IngestParams, source: Path, scratch: Path) -> Samples:
    """Read `source`; rows that had to be made lie in the file `scratch`, until they are packed.

    Raises:
        BadInput: `source` holds no examples, or those of one class only, or is broken.
        StageFailed: a decoding process was killed.
        OSError: the disk is full.
    """
    if documents.tables(source):
        return read_texts(params, source, scratch)
    return read_images(params, source, scratch)
