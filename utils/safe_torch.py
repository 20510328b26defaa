"""Files of torch.save, looked through before torch opens them.

`torch.load(weights_only=True)` executes nothing of a file, but believes what it says of sizes: it allocates what a storage
claims, reads past the end of a record that is shorter than its storage, and unpacks whatever the zip directory names. Here the
pickle is walked through without building anything, and every storage and tensor is held against the bytes that are there.
"""

import mmap
import pickletools
import zipfile
from collections import namedtuple

from utils.errors import InputError, first_line
from utils.safe_load import file_size

MOST_PICKLE = 2**27  # bytes of a file's structure, without its tensors
DEEPEST = 30  # tuples in tuples, whose hash would overflow the stack
LEGACY = 0x1950A86A20F9469CFC6C  # what a file of torch before 1.6 begins with
ITEM_BYTES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4,
    "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1,
    "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16,
}  # fmt: skip
TENSORS = ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2")
CALLED = (*TENSORS, "torch._utils _rebuild_parameter", "collections OrderedDict", "collections Counter", "torch Size",
          "torch device", "__builtin__ set", "builtins set", "_codecs encode")  # fmt: skip
DTYPES = {"torch float32", "torch float64", "torch float16", "torch bfloat16", "torch int64", "torch int32", "torch int16",
          "torch int8", "torch uint8", "torch bool", "torch complex64", "torch complex128"}  # fmt: skip
EXPANDED = 2**24  # numbers of a tensor that repeats what it has

_Name = namedtuple("_Name", "name")  # a class or function that a pickle names
_Storage = namedtuple("_Storage", "key bytes items")
_Tuple = namedtuple("_Tuple", "items depth")
_THING = object()  # a dict, a tensor, what a call gives: nothing more need be known of it
_MARK = object()
_SINGLE = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


def check_torch_file(path):
    """Raise InputError unless `path` is a file of torch.save, zipped or of before torch 1.6, that holds what it claims."""
    file_size(path)
    try:
        with open(path, "rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
            _check_zip(file) if zipped else _check_legacy(file)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, MemoryError, RecursionError, zipfile.BadZipFile,
            NotImplementedError) as error:  # fmt: skip
        raise InputError(f"{path} is not a checkpoint of tensors and plain values ({first_line(error, 120)})") from None


def _check_zip(file):
    """The records of a zip archive lie one after another, uncompressed, and each storage's has the bytes it should have."""
    size = file.seek(-22, 2) + 22
    if file.read(4) != b"PK\x05\x06":  # else zip readers differ on where the directory is
        raise ValueError("not a zip archive as torch writes it")
    with zipfile.ZipFile(file) as archive:
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        names = {entry.filename for entry in entries}
        if len(names) < len(entries) or not entries or entries[0].header_offset:
            raise ValueError("not a zip archive as torch writes it")
        ends = [entry.header_offset for entry in entries[1:]] + [archive.start_dir]
        for entry, end in zip(entries, ends, strict=True):
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise ValueError(f"{entry.filename} is compressed")
            if entry.header_offset + 30 + len(entry.filename) + entry.file_size > min(end, size):
                raise ValueError(f"{entry.filename} claims more bytes than there are")
        held = {entry.filename.partition("/")[2]: entry for entry in entries}
        record = held["data.pkl"]
        if record.file_size > MOST_PICKLE:
            raise ValueError("its structure is too large")
        with archive.open(record) as stream:
            storages = _Walk(stream).run()[1]
    for key, storage in storages.items():
        if held[f"data/{key}"].file_size != storage.bytes:
            raise ValueError(f"the tensor {key} claims another size than it has")


def _check_legacy(file):
    """Magic number, protocol and machine, content, keys of the storages: pickles; then each storage, its length before it."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        if _Walk(stream).run()[0] != LEGACY:
            raise ValueError("not written by torch.save")
        _Walk(stream).run(), _Walk(stream).run()
        storages = _Walk(stream).run()[1]
        keys = _Walk(stream).run()[0]
        if not isinstance(keys, list) or sorted(keys) != sorted(storages):
            raise ValueError("its storages are not those it lists")
        if sum(8 + storage.bytes for storage in storages.values()) > len(stream) - stream.tell():
            raise ValueError("its tensors claim more bytes than the file has")


class _Walk:
    """One pickle gone through as the unpickler would, with the operations that tensors and plain values need and no others."""

    def __init__(self, stream):
        self.stream, self.stack, self.memo, self.storages = stream, [], {}, {}

    def run(self):
        """-> what the pickle holds, as far as it is known here; {key: _Storage}."""
        start = self.stream.tell()
        for operation, argument, place in pickletools.genops(self.stream):
            if place - start > MOST_PICKLE:
                raise ValueError("its structure is too large")
            if operation.name == "STOP":
                return self.stack.pop(), self.storages
            self.step(operation.name, argument)

    def step(self, name, argument):
        stack = self.stack
        if name in _SINGLE:
            if isinstance(argument, int) and argument != LEGACY and abs(argument) >= 2**63:
                raise ValueError("a number longer than 64 bits")
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "GLOBAL":
            stack.append(_named(argument))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "BINPERSID":
            stack.append(self.storage(stack.pop()))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_call(stack.pop(), arguments))
        elif name == "BUILD":
            if stack.pop() is not _THING or stack[-1] is not _THING:
                raise ValueError("an object of a kind that is not read")
        else:
            self.contain(name)

    def contain(self, name):
        """The operations that make and fill containers."""
        stack = self.stack
        if name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append(_THING)
        elif name == "EMPTY_TUPLE":
            stack.append(_tuple([]))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(_tuple([stack.pop() for _ in range(int(name[-1]))][::-1]))
        elif name == "TUPLE":
            stack.append(_tuple(self.since_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self.since_mark()
            if not isinstance(stack[-1], list):
                raise ValueError("items of what is no list")
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(), stack.pop()] if name == "SETITEM" else self.since_mark()
            if stack[-1] is not _THING or len(items) % 2:
                raise ValueError("items of what is no dict")
        elif name != "PROTO":
            raise ValueError(f"a pickle with {name}, which torch.save does not write")

    def since_mark(self):
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def storage(self, said):
        """('storage', class, key, place, items), and in old files a part of it that tensors share."""
        kind, of, key, _, items, *part = said.items
        if (
            kind != "storage"
            or not isinstance(of, _Name)
            or not isinstance(key, str)
            or type(items) is not int
            or items < 0
        ):
            raise ValueError("a storage that torch.save would not write")
        storage = _Storage(key, items * ITEM_BYTES[of.name.rpartition(" ")[2]], items)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"two storages called {key[:40]}")
        if not part or part[0] is None:
            return storage
        _, offset, length = part[0].items
        if not 0 <= offset <= offset + length <= items:
            raise ValueError("a part of a storage that it has not got")
        return storage._replace(items=length)


def _named(name):
    module, _, word = name.partition(" ")
    if name in DTYPES:
        return _THING
    if name not in CALLED and not (module in ("torch", "torch.cuda") and word in ITEM_BYTES):
        raise ValueError(f"it names {name[:80]}, which no tensor needs")
    return _Name(name)


def _tuple(items):
    depth = 1 + max((item.depth for item in items if isinstance(item, _Tuple)), default=0)
    if depth > DEEPEST:
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    return _Tuple(items, depth)


def _call(function, arguments):
    if not isinstance(function, _Name) or function.name not in CALLED or not isinstance(arguments, _Tuple):
        raise ValueError("a call of what is no function")
    if function.name == "torch Size":
        return arguments.items[0]
    if function.name == "_codecs encode" and arguments.items[1:] != ["latin1"]:
        raise ValueError("bytes written in an unusual way")
    if function.name in TENSORS:
        storage, offset, size, stride = arguments.items[:4]
        _check_tensor(storage, offset, _sizes(size), _sizes(stride))
    return _THING


def _check_tensor(storage, offset, size, stride):
    numbers = [offset, *size, *stride]
    if not isinstance(storage, _Storage) or not all(type(number) is int and 0 <= number < 2**48 for number in numbers):
        raise ValueError("a tensor without storage or size")
    count = 1
    for length in size:
        count *= length
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if count > max(storage.items, EXPANDED) or (count and last >= storage.items):
        raise ValueError(f"a tensor of {count:,} numbers where {storage.items:,} are")


def _sizes(value):
    items = value.items if isinstance(value, _Tuple) else None
    if items is None or len(items) > 64:
        raise ValueError("a tensor without a size")
    return items
