"""A look into a file of torch.save before torch reads it: nothing is executed, nothing large is allocated.

`torch.load(weights_only=True)` executes no foreign code, but it unpacks compressed records whatever their size, and it
calls a few harmless constructors with any arguments, `bytearray(10**11)` for example. So the directory of the archive
and its pickle are gone through first, with stand-ins in the place of everything that the pickle names.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from yolox_lt.errors import UserError

OPCODES = """
PROTO FRAME STOP MARK POP POP_MARK MEMOIZE BINPUT LONG_BINPUT BINGET LONG_BINGET
GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD BINPERSID
NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT
BINUNICODE SHORT_BINUNICODE BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES
EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 DICT LIST
APPEND APPENDS SETITEM SETITEMS
""".split()  # noqa: SIM905
"""What plain values and tensors are pickled with: no opcode that reserves memory by itself."""

NUMPY_NUMBERS = frozenset(
    {
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }
)
"""What a numpy number is pickled as: official YOLOX writes its AP so."""


MAX_SHOWN = 2**28
"""Elements of a tensor that shows fewer numbers several times (stride 0): 1 GB if it is copied as float32."""


class StandIn:
    """In the place of a tensor or a number of the file."""

    def __init__(self, *args: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class Walk(pickle.Unpickler):
    """Goes through a pickle without making tensors or calling anything that it names.

    limit: elements that a tensor may have.
    """

    def __init__(self, content: bytes, limit: int, more: frozenset[tuple[str, str]]) -> None:
        super().__init__(io.BytesIO(content))
        self.limit = limit
        self.more = more

    def persistent_load(self, pid: Any) -> Any:
        """A storage; torch itself compares its declared size with the record."""
        return StandIn()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self.tensor
        if (module, name) in self.more or (module, name) in (("torch._utils", "_rebuild_parameter"), ("torch", "Size")):
            return StandIn
        if module == "torch" and (name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype)):
            return None  # an argument, never called
        raise ForeignObjectError(f"{module}.{name}")

    def tensor(self, storage: Any, offset: int, size: tuple[int, ...], *rest: Any) -> StandIn:
        if math.prod(size) > self.limit:
            raise ValueError(f"a tensor of shape {list(size)}: more than {self.limit:,} elements")
        return StandIn()


class ForeignObjectError(Exception):
    """The pickle names an object that is neither a tensor nor a plain value."""


def is_archive(path: Path) -> bool:
    """Whether a file has the layout that torch.save has written since torch 1.6."""
    return zipfile.is_zipfile(path)


def check_archive(path: Path, more: frozenset[tuple[str, str]] = frozenset()) -> None:
    """Refuse an archive that holds code, is compressed, or declares more than the file has.

    Args:
        path: a file for which `is_archive` is true.
        more: (module, name) of objects that are let in besides tensors and plain values.

    Raises:
        UserError: an object that is no tensor or plain value, compressed or overlapping records, tensors of more
            elements than the file has bytes and than MAX_SHOWN, a damaged directory or pickle.
    """
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise ValueError("its records are compressed, as torch.save never does")
            unpacked = sum(record.file_size for record in records)
            if unpacked > size:
                raise ValueError(f"its records claim {unpacked:,} bytes in a file of {size:,}")
            pickles = [record for record in records if record.filename.split("/")[1:] == ["data.pkl"]]
            if len(pickles) != 1:
                raise ValueError(f"{len(pickles)} records named data.pkl instead of one")
            content = archive.read(pickles[0])
        walk(content, max(size, MAX_SHOWN), more)
    except ForeignObjectError as error:
        raise UserError(
            f"{path}: holds the Python object {error}, which is not loaded because that would run code; save "
            "the state dict alone where the file was made"
        ) from error
    except OSError:
        raise
    except Exception as error:  # a damaged file fails anywhere inside the readers
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a readable checkpoint ({reason}); download or copy it again") from error


def walk(content: bytes, limit: int, more: frozenset[tuple[str, str]]) -> None:
    """Go through a pickle; see `Walk`."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name not in OPCODES:
            raise ValueError(f"the pickle has the opcode {opcode.name}, which tensors and plain values do without")
        if opcode.name in ("LONG_BINPUT", "LONG_BINGET") and (argument or 0) > len(content):
            raise ValueError(f"the pickle numbers an object {argument:,}")  # which reserves a table of that length
    Walk(content, limit, more).load()
