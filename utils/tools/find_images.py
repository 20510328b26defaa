"""Write the table of images of a microscope's folder: which file, or which
plane of a file, shows which channel of which Id.

    python -m utils.tools.find_images plates -o images.csv
    python -m utils.tools.find_images plates -o images.csv \\
        --stains DAPI=blue FITC=green TRITC=red Cy5=yellow
    python -m utils.tools.find_images plates -o images.csv \\
        --match "{plate}_{well}_s{site}_w{n}{stain}.TIF" --stains DAPI=blue …
    python -m utils.tools.find_images path_list.csv -o images.csv
    python train.py --images images.csv …

Files are found by the patterns at the top of this module (MetaXpress, Opera,
CellVoyager, Leica, Fiji, a folder per channel, …), by --match or by --regex.
TIFFs of several channels, also OME-TIFF and ImageJ's, and colour images are
taken apart; the column pixel_size holds the micrometres of their pixels where
they say it. A list may be SubCellPortable's path_list.csv or CellProfiler's
for LoadData. Files that only bioio reads (CZI, LIF, ND2) are converted to
TIFF beside the table.

In --match, {stain} is what --stains translates, and the other placeholders,
joined, are the Id unless there is {Id}; they become columns of the table.
{n}, {site}, {field}, {row}, {column}, {z} and {t} are digits, {well} is such
as B02, {name:REGEX} is what you say.
"""

import os
import re
from collections import Counter, namedtuple
from pathlib import Path

import pandas as pd

from utils.cli import option_parser, run_script
from utils.data.image_files import HIDDEN, describe_problems, look_at_files
from utils.data.images import CHANNELS, ENDINGS
from utils.data.tables import check_ids
from utils.errors import InputError, listing, plural
from utils.files import check_outputs, nfc, write_csv
from utils.tools.image_lists import read_list
from utils.tools.image_planes import CONVERTED, convert, list_planes, pixel_size_of

# A pattern is a regular expression of a file's path without its ending. Groups: `stain`, or `n` where it is empty;
# `colours`: of one RGB file; `Id`, or all others joined. Without a stain, the file's content names its channels. The
# first that fits counts.
NUMBER, WELL = r"\d+", r"(?-i:[A-Z]{1,2}\d{1,2})"  # a site is s1, and a well S01
COLOURS = "red|green|blue|yellow"
WORDS = rf"{COLOURS}|dapi|hoechst\w*|dna|gfp|egfp|fitc|tritc|rfp|mcherry|texas ?red|cy[2357]|(?:alexa|af)[ -]?\d{{3}}"
PATTERNS = {
    "<Id>_<colours>": rf"(?P<Id>.+?)_(?P<colours>(?:{COLOURS})(?:_(?:{COLOURS}))+)",
    "<Id>_<colour>": rf"(?P<Id>.+)_(?P<stain>{COLOURS})",
    "MetaXpress": rf"(?P<Id>(?P<plate>.+)_(?P<well>{WELL})(?:_s(?P<site>\d+))?)_(?P<n>w\d)(?P<stain>.*?)(?:[0-9A-F]{{8}}-[0-9A-F-]{{27}})?",
    "Opera": r"(?P<Id>r(?P<row>\d+)c(?P<column>\d+)f(?P<field>\d+)p(?P<z>\d+))-(?P<stain>ch\d+)sk(?P<t>\d+)fk\d+fl\d+",
    "CellVoyager": rf"(?P<plate>.+)_(?P<well>{WELL})_T(?P<t>\d+)F(?P<field>\d+)L\d+A\d+Z(?P<z>\d+)(?P<stain>C\d+)",
    "Leica": r"(?P<Id>.+)_(?P<stain>ch\d+)",
    "<Id>_<stain>": rf"(?P<Id>.+)[_-](?P<stain>(?:{WORDS})|[cw]\d+)",
    "Fiji": r"(?P<stain>C\d+)-(?P<Id>.+)",
    "a folder per channel": rf"(?P<stain>(?:{WORDS})|(?:ch|c|w)_?\d+)/(?P<Id>[^/]+)",
    "a file per Id": r"(?P<Id>.+?)(?:\.ome)?",
}
# What the names of stains mean: surely, and as a proposal to check. The wavelengths are those of the Human Protein
# Atlas: Alexa Fluor 488 the protein, 555 microtubules, 647 the endoplasmic reticulum.
KNOWN = {"red": "red|microtubules?|tubulin", "green": "green|protein", "blue": "blue|dapi|hoechst.*|nucle(us|i)|dna"}
KNOWN |= {"yellow": "yellow|er|reticulum|calreticulin"}
LIKELY = {"green": "gfp|fitc|488|cy2", "red": "tritc|cy3|555|568|594|rfp|cherry|texas", "yellow": "cy5|633|647"}
MEANING = "red: microtubules, green: the protein, blue: nuclei, yellow: endoplasmic reticulum"
STAIN_GROUPS = ("stain", "channel", "wavelength", "dye", "colour", "n", "channelnumber", "wavelengthnumber")
NUMBERS = ("n", "site", "field", "row", "column", "z", "t")

# One plane. folder: of the file, as a prefix of the Id if it is needed. columns: what else its name says.
Plane = namedtuple("Plane", "id stain path folder columns")


def main():
    parser = option_parser(__doc__, "utils.tools.find_images")
    arg = parser.add_argument
    arg("source", metavar="FOLDER", help="folder of images, searched with those in it, or a list in CSV")
    arg("-o", "--out", default="images.csv", metavar="CSV", help="table to write (default: %(default)s)")
    arg("--match", metavar="NAME", help="the names of the files, with placeholders in braces")
    arg("--regex", help="or a regular expression with named groups, as in CellProfiler")
    arg("--stains", nargs="+", default=[], metavar="DYE=COLOUR", help=f"the channel of each stain; {MEANING}")
    arg("--skip-bad", action="store_true", help="leave out Ids that lack a channel, or whose files cannot be used")
    args = parser.parse_args()
    stains = parse_stains(args.stains)
    source, out = Path(args.source), Path(args.out)
    check_outputs([out], [source])
    if args.match and args.regex:
        raise InputError("--match and --regex exclude each other; give one of them")
    if not source.exists():
        raise InputError(f"{source} does not exist; name a folder of images or a list of them")
    files = list_files(source) if source.is_dir() else []
    foreign = [source / file for file in files if file.lower().endswith(CONVERTED)]
    if not files:
        planes = [Plane(*row) for row in read_list(source)]
    elif foreign:
        others = f"; {plural(len(files) - len(foreign), 'other image')} left out" if len(files) > len(foreign) else ""
        print(f"{len(foreign):>9,}  to convert              {listing(foreign)}{others}")
        planes = [Plane(*row) for path in foreign for row in convert(path, out)]
    else:
        planes = find_planes(source, files, args.match, args.regex)
    spelling = {}
    planes = [plane._replace(stain=spelling.setdefault(plane.stain.lower(), plane.stain)) for plane in planes]
    stains = stains or guess_stains(planes, args)
    table, lacking = make_table(planes, stains, source)
    for path in foreign:
        convert(path, out, set(table[list(stains.values())].to_numpy().ravel()))
    table = drop_bad(table, lacking, args.skip_bad)
    relative = table.assign(**{name: [_relative(path, out) for path in table[name]] for name in stains.values()})
    write_csv(out, relative)
    print(f"{plural(len(table), 'Id')} with {listing(stains.values(), 4)} -> {out}")


def parse_stains(words):
    """Parse ``DAPI=blue``, …: -> {stain: channel}, in the order of CHANNELS."""
    pairs = [word.rpartition("=")[::2] for word in words]
    for word, (stain, channel) in zip(words, pairs, strict=True):
        if not stain or channel not in CHANNELS.values():
            raise InputError(f"--stains {word!r} is not understood; give the channel of a stain such as DAPI=blue")
    for place in (0, 1):
        counts = Counter(pair[place] for pair in pairs)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise InputError(f"--stains names {twice[0]} twice; give each stain and each channel once")
    return dict(sorted(pairs, key=lambda pair: list(CHANNELS.values()).index(pair[1])))


def find_planes(folder, files, match, regex):
    """Find the planes of a folder's files: -> [Plane]. Print the patterns that fit, and how many files each."""
    if match or regex:
        patterns = {match or regex: match_pattern(match) if match else _compile(regex)}
    else:
        end = rf"\.(?:{'|'.join(ENDINGS)})"
        patterns = {name: _compile(rf"(?:(?P<folder>.*)/)?{text}{end}", "fullmatch") for name, text in PATTERNS.items()}
    fitting, rest = {name: [] for name in patterns}, []
    for file in files:
        # A regular expression without / is for the name of a file alone.
        texts = {name: file if "/" in name or not (match or regex) else file.rpartition("/")[2] for name in patterns}
        found = ((name, patterns[name](texts[name])) for name in patterns)
        name, groups = next(((name, groups) for name, groups in found if groups), (None, None))
        fitting[name].append((file, groups.groupdict())) if name else rest.append(file)
    if not any(fitting.values()):
        raise InputError(f"{match or regex} fits none of {plural(len(files), 'image')} in {folder}, such as {files[0]}")
    for name, found in fitting.items():
        if found:
            print(f"{len(found):>9,}  {name:<22}  {found[0][0]}")
    chosen = max(fitting, key=lambda name: len(fitting[name]))
    rest += [file for name in fitting if name != chosen for file, _ in fitting[name]]
    if rest:
        print(f"{len(rest):>9,}  left out                {listing(sorted(rest))}")
    return [plane for found in _with_planes(folder, fitting[chosen]) for plane in found]


def list_files(folder):
    """List the image files in a folder and those in it, without thumbnails: -> paths from the folder, with /."""
    files = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            usable = name.lower().endswith(tuple(f".{ending}" for ending in ENDINGS) + CONVERTED)
            if usable and "_thumb" not in name.lower() and not name.startswith(HIDDEN):
                files.append((Path(place) / name).relative_to(folder).as_posix())
    if not files:
        raise InputError(f"{folder} has no image ({', '.join(ENDINGS)}); name the folder of the images")
    return files


def _compile(text, method="search"):
    try:
        return getattr(re.compile(text, re.IGNORECASE), method)
    except re.error as error:
        raise InputError(f"{text!r} is not a regular expression with named groups ({error}); fix it") from None


def match_pattern(template):
    """Make the function that matches ``{Id}_w{n}{stain}.TIF``, for any ending if it has none."""

    def group(placeholder):
        name, _, regex = placeholder[1:-1].partition(":")
        if not name.isidentifier():
            raise InputError(f"--match {template!r}: {placeholder} is not a placeholder; give a name such as {{well}}")
        return f"(?P<{name}>{regex or (NUMBER if name in NUMBERS else WELL if name == 'well' else '[^/]+')})"

    parts = re.split(r"(\{(?:[^{}]|\{[^{}]*\})*\})", template)
    text = "".join(group(part) if part.startswith("{") else re.escape(part) for part in parts)
    ending = "" if template.lower().endswith(tuple(f".{ending}" for ending in ENDINGS)) else r"\.\w+"
    return _compile(rf"{text}{ending}", "fullmatch")


def _with_planes(folder, found):
    """Yield the list of planes of each file. found: [(file, groups)]."""
    named = any(group.lower() in STAIN_GROUPS for group in found[0][1])
    contents = None if named or "colours" in found[0][1] else list_planes([folder / file for file, _ in found])
    for file, groups in found:
        groups = {name: text for name, text in groups.items() if text}
        stains = [groups.pop(name) for name in list(groups) if name.lower() in STAIN_GROUPS]
        above, colours = groups.pop("folder", str(Path(file).parent)), groups.pop("colours", "").lower()
        id_ = groups.pop("Id", None) or "_".join(groups.values()) or Path(file).stem
        if {"row", "column"} <= set(groups):
            groups["well"] = f"{chr(64 + int(groups['row']))}{int(groups['column']):02}"
        if named:
            # The longest is the name, the other the number.
            path = folder / file
            yield [Plane(id_, max(stains, key=len), path, above, groups | pixel_size_of(path))]
        elif colours:
            names = [] if "yellow" in colours else colours.split("_")
            yield [Plane(id_, name, Path(f"{folder / file}#{name}"), above, groups) for name in names]
        else:
            yield [
                Plane(id_ + suffix, stain, Path(f"{folder / file}{plane}"), above, groups | columns)
                for suffix, stain, plane, columns in contents[folder / file]
            ]


def guess_stains(planes, args):
    """Find the channels of the stains by their names: -> {stain: channel}. Raise InputError, with a proposal, if in doubt."""
    counts = Counter(plane.stain for plane in planes)
    surely = {stain: _meaning(stain, KNOWN, "fullmatch") for stain in counts}
    if all(surely.values()) and len(set(surely.values())) == len(surely):
        return {stain: name for name in CHANNELS.values() for stain in surely if surely[stain] == name}
    proposal = {}
    for guess in (surely, {stain: _meaning(stain, LIKELY, "search") for stain in counts}):
        for stain, channel in guess.items():
            if channel and stain not in proposal and channel not in proposal.values():
                proposal[stain] = channel
    free = [name for name in ("blue", "green", "red", "yellow") if name not in proposal.values()]
    proposal |= dict(zip([stain for stain in sorted(counts) if stain not in proposal], free))
    words = [
        "python -m utils.tools.find_images",
        f"'{args.source}'" if " " in args.source else args.source,
        "-o",
        args.out,
    ]
    words += ["--match", f"'{args.match}'"] if args.match else ["--regex", f"'{args.regex}'"] if args.regex else []
    words += [
        "--stains",
        *(f"'{stain}={name}'" if " " in stain else f"{stain}={name}" for stain, name in proposal.items()),
    ]
    raise InputError(
        f"say which channels the stains {_list_stains(planes)} are ({MEANING}); check and run: {' '.join(words)}"
    )


def _list_stains(planes):
    """``Cy5 (20), DAPI (20)``"""
    counts = Counter(plane.stain for plane in planes)
    return listing([f"{stain} ({count:,})" for stain, count in sorted(counts.items())], 8)


def _meaning(stain, words, method):
    plain = re.sub(r"[\W_]", "", stain.lower()).removeprefix("orig")  # CellProfiler's OrigDNA
    return next((name for name, text in words.items() if getattr(re, method)(text, plain)), None)


def make_table(planes, stains, source):
    """-> DataFrame with Id, the channels of `stains`, whose cells are Paths, and other columns; {Id: [missing channel]}."""
    stains = {stain.lower(): channel for stain, channel in stains.items()}
    if absent := sorted(set(stains) - {plane.stain.lower() for plane in planes}):
        raise InputError(f"{source} has no stain {listing(absent)}; it has {_list_stains(planes)}")
    used = [plane._replace(id=nfc(plane.id)) for plane in planes if plane.stain.lower() in stains]
    places = {(plane.id, plane.stain.lower()) for plane in used}
    if len(places) < len(used) and len({plane.folder for plane in used}) > 1:
        used = [plane._replace(id="_".join([*Path(plane.folder).parts, plane.id])) for plane in used]
    rows, twice = {}, []
    for plane in used:
        row, channel = rows.setdefault(plane.id, {}), stains[plane.stain.lower()]
        if channel in row:
            twice.append(f"{plane.id}, {channel} ({row[channel].name} and {plane.path.name})")
        rows[plane.id] = plane.columns | row | {channel: plane.path}
    if twice:
        fix = "give them different Ids with --match, or move one away"
        raise InputError(f"{source}: {plural(len(twice), 'channel')} in two files: {listing(twice)}; {fix}")
    channels = [name for name in CHANNELS.values() if name in stains.values()]
    others = [name for name in dict.fromkeys(name for row in rows.values() for name in row) if name not in channels]
    table = pd.DataFrame([{"Id": id_, **rows[id_]} for id_ in sorted(rows)])
    check_ids(source, table["Id"])
    lacking = {id_: [name for name in channels if name not in rows[id_]] for id_ in sorted(rows)}
    return table.reindex(columns=["Id", *channels, *others]), {id_: names for id_, names in lacking.items() if names}


def drop_bad(table, lacking, skip):
    """Return the table without the rows that lack a channel or whose files cannot be used. Raise InputError for such rows
    without `skip`, and if no row is left."""
    whole = table[~table["Id"].isin(lacking)].reset_index(drop=True)
    names = [name for name in CHANNELS.values() if name in table]
    _, bad = look_at_files([tuple(row) for row in whole[names].itertuples(index=False)])
    problems = []
    if lacking:
        what = listing([f"{id_} ({', '.join(absent)})" for id_, absent in lacking.items()])
        problems.append(f"{plural(len(lacking), 'Id')} of {len(table):,} without a channel: {what}")
    if bad:
        problems.append(describe_problems(bad))
    if problems and (not skip or len(bad) == len(whole)):
        raise InputError("; ".join(problems) + ("" if skip else "; or leave out such Ids with --skip-bad"))
    if problems:
        print(f"{plural(len(lacking) + len(bad), 'Id')} left out: {'; '.join(problems)}")
    return whole.drop(index=list(bad))


def _relative(path, table):
    """Return the path as the table's cell: counted from the table's folder if the file is in it, else absolute."""
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(table)).parent
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


if __name__ == "__main__":
    run_script(main)
