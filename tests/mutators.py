"""Damage for files: to any bytes, and to the structure of each format so that what is wrong lies deeper than its checks.

Every mutator takes the bytes of a whole file and a `random.Random`, and gives other bytes.
"""

import copy
import csv
import gzip
import io
import json
import math
import struct
import zipfile
import zlib

import numpy as np
import torch

TEXTS = [
    "", " ", "0", "-1", "1", "2", "0.5", "1e999", "-1e999", "nan", "NaN", "inf", "1e-320", "9" * 30, "9" * 5000, "0x10", "1_0", "١", "²",
    "../x", "../../../../tmp/x", "/etc/passwd", "C:\\x", "a/b", ".", "..", "~", "\0", "a\0b", "\n", "\r\n", "\t", "\x1b[2J", "\x7f",
    "\u202e", "\u2028", "\ufeff", "é", "🧬", '"', "''", '"a', "a,b", "=1+1", "%s", "{}", "$x_$", "$\\frac$", "None", "True", "Id",
    "Target", "x" * 300, "x" * 100_000, "hpa", "all", "-", "--", "1 1", "0 1 2 3", "1;2", "\ud7ff", "\U0010ffff",
]  # fmt: skip
VALUES = [
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308, math.nan, math.inf, [], {}, [[]], [None], {"": None},
    [0] * 1000, {"a": {"b": []}}, *TEXTS,
]  # fmt: skip
NUMBERS = [*range(4), 7, 8, 16, 127, 128, 255, 256, 8192, 8193, 32767, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1]
WORDS = [
    b"\0" * 8,
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b"PK\x03\x04",
    b"\x80\x02",
    b"[" * 5000,
    b"(" * 5000,
    b"\x85" * 5000,
]


def damage(data, random):
    """One to three of the operations on bytes."""
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        data = random.choice([_flip, _flip, _cut, _splice, _repeat, _insert, _delete, _overwrite])(
            bytearray(data), random
        )
    return bytes(data)


def _place(data, random):
    """Anywhere, or near one of the ends, where formats have their tables."""
    reach = random.choice([len(data), 64, 512, 4096])
    place = random.randrange(min(len(data), reach) + 1)
    return random.choice([place, len(data) - place])


def _flip(data, random):
    for _ in range(random.choice([1, 1, 2, 8, 64])):
        if data:
            data[min(_place(data, random), len(data) - 1)] ^= 1 << random.randrange(8)
    return data


def _cut(data, random):
    place = _place(data, random)
    return data[:place] if random.random() < 0.8 else data[place:]


def _splice(data, random):
    a, b = _place(data, random), _place(data, random)
    return data[:a] + data[b:]


def _repeat(data, random):
    place, length = _place(data, random), random.choice([1, 4, 50, 1000])
    return data[:place] + data[place : place + length] * random.choice([2, 10, 100]) + data[place:]


def _insert(data, random):
    place = _place(data, random)
    return data[:place] + _word(random) + data[place:]


def _delete(data, random):
    place = _place(data, random)
    return data[:place] + data[place + random.choice([1, 2, 10, 100]) :]


def _overwrite(data, random):
    place, word = _place(data, random), _word(random)
    data[place : place + len(word)] = word
    return data


def _word(random):
    packed = struct.pack(random.choice(["<I", ">I", "<Q", ">Q"]), random.choice(NUMBERS))
    return random.choice([packed, random.choice(WORDS), random.choice(TEXTS).encode("utf-8")])


def table(data, random):
    """A CSV with other cells, rows or columns, at times with another separator, in another encoding or packed."""
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    for _ in range(random.choice([1, 1, 2, 4])):
        _change_table(rows, random)
    stream = io.StringIO(newline="")
    end = random.choice(["\n", "\n", "\r\n"])
    mark, quoting = random.choice(",,,,,;\t"), random.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    csv.writer(stream, delimiter=mark, lineterminator=end, quoting=quoting).writerows(rows)
    text = random.choice(["", "", "", f"sep={mark}{end}"]) + stream.getvalue()
    data = text.encode(random.choice(["utf-8", "utf-8", "utf-8", "utf-16"]), "surrogatepass")
    return gzip.compress(data) if random.random() < 0.1 else data


def _change_table(rows, random):
    row = random.randrange(len(rows)) if rows else 0
    if not rows or not rows[row]:
        rows.insert(row, ["Id", random.choice(TEXTS)])
        return
    column, other = random.randrange(len(rows[row])), random.randrange(len(rows))
    what = random.randrange(9)
    if what < 3:
        rows[row][column] = random.choice(TEXTS)
    elif what == 3:
        rows[row][column] = rows[other][min(column, len(rows[other]) - 1)] if rows[other] else ""
    elif what == 4:
        rows.insert(other, list(rows[row]))
    elif what == 5:
        del rows[row]
    elif what == 6:
        for one in rows:
            del one[column : column + 1]
    elif what == 7:
        rows[0][:] = random.sample(rows[0], len(rows[0]))
    else:
        for one in rows:
            one.insert(column, random.choice(TEXTS))


def tree(data, random):
    """JSON with other values somewhere, or nested as deep as no reader goes."""
    if random.random() < 0.02:
        depth = random.choice([10, 50, 1000, 100_000])
        return b'{"classes":' + b"[" * depth + b"]" * depth + b"}"
    content = json.loads(data)
    for _ in range(random.choice([1, 1, 2, 4])):
        content = change_value(content, random)
    text = json.dumps(content, ensure_ascii=random.random() < 0.5)
    if random.random() < 0.05:
        text = text.replace("{", '{"classes": 1, ', 1)
    return text.encode("utf-8", "surrogatepass")


def change_value(content, random):
    """A JSON value with one value in it replaced, removed, doubled, renamed or nested."""
    content = copy.deepcopy(content)
    if not isinstance(content, (dict, list)) or not content or random.random() < 0.02:
        return random.choice(VALUES)
    holder = content
    while True:
        key = random.choice(list(holder)) if isinstance(holder, dict) else random.randrange(len(holder))
        if isinstance(holder[key], (dict, list)) and holder[key] and random.random() < 0.7:
            holder = holder[key]
            continue
        break
    what = random.randrange(8)
    if what < 4:
        holder[key] = random.choice(VALUES)
    elif what == 4:
        del holder[key]
    elif what == 5:
        holder[key] = [holder[key]] * random.choice([1, 2, 100])
    elif isinstance(holder, dict):
        holder[random.choice(TEXTS)] = holder.pop(key) if what == 6 else holder[key]
    else:
        holder.insert(key, holder[key])
    return content


def png(data, random):
    """A PNG with other chunks, each with the right checksum."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        length = struct.unpack(">I", data[place : place + 4])[0]
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    for _ in range(random.choice([1, 1, 2])):
        number = random.randrange(len(chunks))
        kind, body = chunks[number]
        what = random.randrange(7)
        if what == 0 and kind == b"IDAT":
            body = zlib.compress(damage(zlib.decompress(body), random))
        elif what <= 1:
            header = list(struct.unpack(">IIBBBBB", chunks[0][1])) if len(chunks[0][1]) == 13 else [1, 1, 8, 0, 0, 0, 0]
            field = random.randrange(7)
            header[field] = random.choice(NUMBERS) if field < 2 else random.choice([0, 1, 2, 3, 4, 6, 8, 16, 255])
            chunks[0] = (b"IHDR", struct.pack(">IIBBBBB", *header))
            continue
        elif what == 2:
            body = damage(body, random)
        elif what == 3:
            chunks.insert(
                number, (random.choice([b"PLTE", b"tRNS", b"gAMA", b"acTL", b"fcTL", b"IDAT", b"IEND", b"zTXt"]), body)
            )
            continue
        elif what == 4:
            chunks.insert(number, (b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 10**6)))
            continue
        elif what == 5 and len(chunks) > 1:
            del chunks[number]
            continue
        else:
            random.shuffle(chunks)
            continue
        chunks[number] = (kind, body)
    return data[:8] + b"".join(png_chunk(kind, body) for kind, body in chunks)


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tiff(data, random):
    """A TIFF with other tags, or another chain of pages."""
    data = bytearray(data)
    order = "<" if data[:2] == b"II" else ">"
    start = struct.unpack(f"{order}I", data[4:8])[0]
    count = struct.unpack(f"{order}H", data[start : start + 2])[0]
    for _ in range(random.choice([1, 1, 2, 3])):
        entry = start + 2 + 12 * random.randrange(count)
        tag, kind, length, value = struct.unpack(f"{order}HHII", data[entry : entry + 12])
        what = random.randrange(6)
        if what == 0:
            tag = random.choice(
                [256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 339, 347, 34675]
            )
        elif what == 1:
            kind = random.randrange(20)
        elif what == 2:
            length = random.choice(NUMBERS)
        elif what == 5:
            next_page = start + 2 + 12 * count
            data[next_page : next_page + 4] = struct.pack(f"{order}I", random.choice([8, start, start + 12, *NUMBERS]))
        else:
            value = random.choice([*NUMBERS, value + 1, value << 16 & 0xFFFFFFFF])
        data[entry : entry + 12] = struct.pack(f"{order}HHII", tag, kind, length, value)
    return bytes(data)


def jpeg(data, random):
    """A JPEG with other segments: sizes, components, tables."""
    data = bytearray(data)
    marks, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marks.append(place)
        if data[place + 1] == 0xDA:
            break
        place += 2 + struct.unpack(">H", data[place + 2 : place + 4])[0]
    mark = random.choice(marks)
    what = random.randrange(4)
    if what == 0:
        data[mark + 2 : mark + 4] = struct.pack(">H", random.choice([0, 1, 2, 3, 8, 65535]))
    elif what == 1:
        frame = next((mark for mark in marks if data[mark + 1] in (0xC0, 0xC1, 0xC2)), mark)
        place = frame + random.choice([5, 7])
        data[place : place + 2] = struct.pack(">H", random.choice([0, 1, 17, 255, 8193, 65535]))
    elif what == 2:
        data[mark + 1] = random.choice([0xC0, 0xC1, 0xC2, 0xC9, 0xD9, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xFE])
    else:
        data[mark + 4 + random.randrange(12)] = random.randrange(256)
    return bytes(data)


def state(data, random):
    """A checkpoint whose config, tensors or archive were changed."""
    what = random.randrange(4)
    if what == 0:
        return archive(data, random)
    content = torch.load(io.BytesIO(data), weights_only=True)
    if what == 1:
        content["config"] = change_value(content["config"], random)
    elif what == 2:
        content["model"] = _change_tensor(dict(content["model"]), random)
    else:
        content[random.choice([*content, "config", "model"])] = random.choice([*VALUES, torch.zeros(2)])
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=random.random() < 0.7)
    return damage(stream.getvalue(), random) if random.random() < 0.2 else stream.getvalue()


def tensors(data, random):
    """Safetensors with another header: other names, types, shapes, places or metadata."""
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:end])
    for _ in range(random.choice([1, 1, 2])):
        header = change_value(header, random)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + data[end:]


def _change_tensor(tensors, random):
    name = random.choice(list(tensors))
    tensor = tensors[name]
    what = random.randrange(7)
    if what == 0:
        tensors[name] = tensor[None]
    elif what == 1:
        tensors[name] = tensor.flatten()[:1].expand(random.choice([2, 10**6, 10**12]))
    elif what == 2:
        tensors[name] = tensor.to(
            random.choice([torch.float64, torch.int8, torch.bool, torch.complex64, torch.float16])
        )
    elif what == 3:
        tensors[name] = torch.full_like(
            tensor, random.choice([math.nan, math.inf, 1e38]) if tensor.is_floating_point() else 0
        )
    elif what == 4:
        del tensors[name]
    elif what == 5:
        tensors[random.choice(TEXTS)] = tensor
    else:
        tensors[name] = random.choice(VALUES)
    return tensors


def archive(data, random):
    """A zip archive with other records: damaged, doubled, compressed, longer or shorter, with the right checksums."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        names = old.namelist()
        chosen, what = (
            random.choice([random.choice(names), names[0], *[name for name in names if name.endswith(".pkl")]]),
            random.randrange(6),
        )
        for name in names:
            content, method = old.read(name), zipfile.ZIP_STORED
            if name == chosen:
                if what == 0:
                    content = damage(content, random)
                elif what == 1:
                    content = content[: random.randrange(len(content) + 1)]
                elif what == 2:
                    content += bytes(random.choice([1, 8, 4096]))
                elif what == 3:
                    method = zipfile.ZIP_DEFLATED
                elif what == 4:
                    continue
            new.writestr(name, content, method)
    return damage(stream.getvalue(), random) if random.random() < 0.1 else stream.getvalue()


def array(data, random):
    """An .npy with another header."""
    values = np.load(io.BytesIO(data))
    what = random.randrange(4)
    if what == 0:
        stream = io.BytesIO()
        kind = random.choice(["<f8", "<f4", ">f2", "<i8", "?", "<c16", "<U4", "<M8[s]", "S3"])
        np.save(stream, np.resize(values, random.choice([values.shape, (0,), (1,), (), (3, 3, 3)])).astype(kind))
        return stream.getvalue()
    shape = random.choice(
        [(10**6, 10**6), (-1, 4), (2**63, 2**63), (), (0,), values.shape[::-1], (1,) * 40, values.shape]
    )
    kind = random.choice(
        ["<f2", "<f8", "|O", "<V9", "S0", "<U0", "<f16", [("a", "<f2"), ("b", "<f8")], "(2,2)<f2", "x" * 50]
    )
    header = f"{{'descr': {kind!r}, 'fortran_order': {random.choice(['True', 'False', '1'])}, 'shape': {shape}, }}"
    if what == 1:
        header = random.choice(["(" * 5000, "{" * 100, "9" * 9000, "__import__('os')", "{'descr': ", "-" * 9000])
    version = random.choice([1, 1, 1, 2, 3, 9])
    length = struct.pack("<H" if version == 1 else "<I", len(header) + 1)
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + b"\n" + values.tobytes()


def arrays(data, random):
    """An .npz, compressed or not, of which one member has another header."""
    stream = io.BytesIO()
    method = random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w", method, compresslevel=1) as new:
        chosen = random.choice(old.namelist())
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content if name != chosen else random.choice([array, damage])(content, random))
    return stream.getvalue()


def lines(data, random):
    """An index of packed samples with other lines or other values in them."""
    parts = data.split(b"\n")[:-1]
    for _ in range(random.choice([1, 1, 2])):
        number = random.randrange(len(parts))
        what = random.randrange(6)
        if what < 3:
            try:
                parts[number] = json.dumps(_larger(json.loads(parts[number]), random)).encode()
            except ValueError:  # of a line changed before
                parts[number] = b"[" * random.choice([1, 100_000])
        elif what == 3:
            parts.insert(number, parts[random.randrange(len(parts))])
        elif what == 4 and len(parts) > 1:
            del parts[number]
        else:
            random.shuffle(parts)
    return b"\n".join(parts) + b"\n"


def _larger(record, random):
    """A record with one number changed a little or to a limit, or with anything changed."""
    if not isinstance(record, list) or random.random() < 0.3:
        return change_value(record, random)
    places = [number for number, value in enumerate(record) if type(value) is int]
    if places:
        place = random.choice(places)
        record[place] = random.choice([record[place] + 1, record[place] * 2, 2**63, 2**31, 0, -1])
    return record
