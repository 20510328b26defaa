"""The config of a run: every option of train.py with its default, and the facts that the result depends on besides them."""

from dataclasses import asdict, dataclass, field, fields

from utils.data.cache import DEFAULT_FOLDER
from utils.data.images import MOST_SIDE, parse_channels
from utils.data.mixing import MIXES
from utils.data.sampling import SAMPLERS
from utils.errors import InputError
from utils.safe_load import check_plain, is_line

MOST_CLASSES = 10_000
MOST_PLANES = 64
MOST_BATCH = 2**20
MOST_FOLD = 99_999  # what a table of folds can hold
FITS = ("resize", "zoom", "crop")
NORMALISATIONS = ("dataset", "image", "none")
AMP = ("auto", "off", "bf16", "fp16")
STEMS = ("mean", "copy", "zero", "random")  # as in utils/models/layers.py, which imports torch
HEADS = ("own", "avg_max", "attention")  # as in utils/models/heads.py, which imports torch
LAYERS = ("all", "last")
PLATEAUS = ("step", "epoch", "none")
LR_SCHEDULES = ("none", "cosine")
KEEPS = ("best", "last")
GAIN_MODES = ("abs", "rel")
TTA_VIEWS = (1, 4, 8)  # as in utils/engine/inference.py, which imports torch
ACTIVATIONS = ("sigmoid", "softmax")


def _field(check, default=None, ignored_on_resume=False, is_option=True):
    """A field of `RunConfig`. check: (what the value should be, predicate). None stands for "not recorded" where it is the default.
    ignored_on_resume: may differ when a run goes on and between the folds of one run, since the result does not depend on it, or
    depends on what another field records. is_option: whether train.py has an option of this name."""
    metadata = {"check": check, "ignored_on_resume": ignored_on_resume, "is_option": is_option}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def _whole(least, most):
    return f"a whole number from {least:,} to {most:,}", lambda value: type(value) is int and least <= value <= most


def _one_of(words):
    return f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value in words


def _is_line(value):
    return isinstance(value, str) and is_line(value)


def is_score_threshold(text):
    """Whether a text is a threshold at which validation can be scored: "best", or a number from 0 to 1."""
    try:
        return text == "best" or 0 <= float(text) <= 1
    except ValueError:
        return False


def _are_class_names(value):
    return (
        isinstance(value, list)
        and 0 < len(value) <= MOST_CLASSES
        and all(_is_line(name) and name.isprintable() and name != "Id" for name in value)
        and len(set(value)) == len(value)
    )


def _are_channels(value):
    try:
        return isinstance(value, str) and len(value) < 20 and bool(parse_channels(value))
    except InputError:
        return False


def _are_lines(value):
    return isinstance(value, list) and all(map(_is_line, value))


_TEXT = ("a text of one line", _is_line)
_TEXTS = ("a list of texts", _are_lines)
_NUMBER = ("a number", lambda value: type(value) in (int, float))
_NUMBERS = ("a list of numbers", lambda value: isinstance(value, list) and all(type(each) is float for each in value))
_COUNT = _whole(0, 2**50)
_VIEWS = ("1, 4 or 8", lambda value: type(value) is int and value in TTA_VIEWS)
_FLAG = ("true or false", lambda value: type(value) is bool)
_ANY = ("a value", lambda value: True)
_SCORE_THRESHOLD = ("best, or a number from 0 to 1", lambda value: _is_line(value) and is_score_threshold(value))
_CLASS_NAMES = (f"a list of at most {MOST_CLASSES:,} different printable names other than Id", _are_class_names)
_CHANNELS = ("a set of channels such as rgby", _are_channels)


@dataclass
class RunConfig:
    """What config.json holds. The options have the names and the meaning that `train.py --help` shows; those without a default here
    come from the recipe. An option added later means its default in the config of an older run."""

    class_names: list = _field(_CLASS_NAMES, is_option=False)
    recipe: str = _field(_TEXT)
    fold: int = _field(_whole(0, 10**6))
    # Data
    folds: str = _field(_TEXT, "input/folds.csv", ignored_on_resume=True)
    images: list = _field(_TEXTS, ignored_on_resume=True)
    classes: str = _field(_TEXT, "hpa", ignored_on_resume=True)
    channels: str = _field(_CHANNELS)
    size: int = _field(_whole(1, MOST_SIDE))
    bits: int = _field(_whole(0, 16), 0)
    pixel_size: float = _field(_NUMBER, 0.0, ignored_on_resume=True)
    fit: str = _field(_one_of(FITS))
    normalise: str = _field(_one_of(NORMALISATIONS))
    augment: str = _field(_TEXT)
    drop_channels: float = _field(_NUMBER, 0.0)
    mix: str = _field(_one_of(("none", *MIXES)), "none")
    mix_probability: float = _field(_NUMBER, 0.5)
    sampler: str = _field(_one_of(("none", *SAMPLERS)), "none")
    limit: int = _field(_COUNT, 0)
    train_limit: int = _field(_COUNT, 0)  # of utils.tools.baseline
    single_label: bool = _field(_FLAG, False)
    valid_source: str = _field(_TEXT, "all")
    pseudo: str = _field(_TEXT, ignored_on_resume=True)
    # Network
    model: str = _field(_TEXT)
    head: str = _field(_one_of(HEADS), "own")
    weights: str = _field(_TEXT)
    layers: str = _field(_one_of(LAYERS), "all")
    stem: str = _field(_one_of(STEMS))
    # Optimisation
    epochs: int = _field(_COUNT)
    max_minutes: float = _field(_NUMBER, 0.0, ignored_on_resume=True)
    batch_size: int = _field(_whole(1, MOST_BATCH))
    accumulate: int = _field(_whole(1, MOST_BATCH), 1)
    loss: str = _field(_TEXT)
    optimiser: str = _field(_TEXT)
    lr: float = _field(_NUMBER)
    momentum: float = _field(_NUMBER)
    weight_decay: float = _field(_NUMBER)
    decay_norms: bool = _field(_FLAG, True)
    l1: float = _field(_NUMBER)
    clip: float = _field(_NUMBER)
    warmup: float = _field(_NUMBER, 0.0)
    lr_schedule: str = _field(_one_of(LR_SCHEDULES), "none")
    plateau: str = _field(_one_of(PLATEAUS))
    patience: float = _field(_NUMBER)
    min_gain: float = _field(_NUMBER)
    min_gain_mode: str = _field(_one_of(GAIN_MODES), "abs")
    ema: float = _field(_NUMBER, 0.0)
    early_stop: int = _field(_COUNT)
    keep: str = _field(_one_of(KEEPS), "best")
    score_threshold: str = _field(_SCORE_THRESHOLD, "best")
    valid_tta: int = _field(_VIEWS, 1)
    tta: int = _field(_VIEWS, 4, ignored_on_resume=True)
    skip_nan: int = _field(_COUNT, 0, ignored_on_resume=True)
    # Run
    name: str = _field(_TEXT, ignored_on_resume=True)
    runs: str = _field(_TEXT, "runs", ignored_on_resume=True)
    seed: int = _field(_COUNT, 0)
    amp: str = _field(_one_of(AMP), "auto")
    checkpointing: bool = _field(_FLAG, False, ignored_on_resume=True)
    compile: bool = _field(_FLAG, False, ignored_on_resume=True)
    device: str = _field(_TEXT, "auto", ignored_on_resume=True)
    workers: int = _field(_ANY, -1, ignored_on_resume=True)
    cache: str = _field(_TEXT, DEFAULT_FOLDER, ignored_on_resume=True)
    no_cache: bool = _field(_FLAG, False, ignored_on_resume=True)
    skip_bad: bool = _field(_FLAG, False, ignored_on_resume=True)
    save_every: str = _field(_TEXT, "10min", ignored_on_resume=True)
    time_limit: str = _field(_TEXT, "0", ignored_on_resume=True)
    overwrite: bool = _field(_FLAG, False, ignored_on_resume=True)
    # Facts
    planes: int = _field(_whole(1, MOST_PLANES), is_option=False)
    activation: str = _field(
        _one_of(ACTIVATIONS), "sigmoid", is_option=False
    )  # softmax: the classes exclude each other
    arithmetic: str = _field(_TEXT, is_option=False)
    parameters: int = _field(_COUNT, ignored_on_resume=True, is_option=False)
    mean: list = _field(_NUMBERS, ignored_on_resume=True, is_option=False)
    std: list = _field(_NUMBERS, ignored_on_resume=True, is_option=False)
    input_pixel_size: float = _field(_NUMBER, ignored_on_resume=True, is_option=False)  # µm; None: unknown
    skipped: list = _field(("a list of Ids", _are_lines), [], ignored_on_resume=True, is_option=False)
    rows_sha256: str = _field(_TEXT, is_option=False)
    versions: dict = _field(_ANY, ignored_on_resume=True, is_option=False)
    commit: str = _field(_ANY, ignored_on_resume=True, is_option=False)

    @classmethod
    def from_dict(cls, values, path):
        """Check the content of a config.json; keys that are no fields are dropped. Raises InputError naming the file `path`."""
        try:
            check_plain(values)
        except ValueError as error:
            raise InputError(f"{path}: its config cannot be used ({error}); give one that train.py wrote") from None
        known = {each.name: each for each in fields(cls)}
        for name, value in values.items():
            if name not in known or (value is None and known[name].default is None):
                continue
            what, fits = known[name].metadata["check"]
            if not fits(value):
                shown = repr(value)
                shown = shown if len(shown) < 60 else f"{shown[:57]}..."
                raise InputError(
                    f"{path}: {name} in its config should be {what}, not {shown}; give one that train.py wrote"
                )
        config = cls(**{name: value for name, value in values.items() if name in known})
        config.require(path, "class_names")
        if config.channels is not None:
            config._check_planes(path)
        return config

    def to_dict(self):
        return asdict(self)

    def require(self, path, *names):
        """Raise InputError naming the file `path` unless all of these fields are recorded."""
        if missing := [name for name in names if getattr(self, name) is None]:
            raise InputError(f"{path}: its config lacks {', '.join(missing)}; give one that train.py wrote")

    @property
    def names_network(self):
        """Whether all that is needed to rebuild the network is recorded."""
        return all(getattr(self, name) is not None for name in NETWORK)

    def changed_options(self, recipe):
        """{option: value} of those that differ from the recipe, a dict, or from their default where the recipe has none."""
        expected = {each.name: recipe.get(each.name, each.default) for each in fields(self)}
        return {name: getattr(self, name) for name in OPTIONS if getattr(self, name) != expected[name]}

    def _check_planes(self, path):
        """Fields with one value for each input plane must fit the channels."""
        planes = parse_channels(self.channels).planes
        if self.planes not in (None, planes):
            raise InputError(
                f"{path}: its config has {self.planes} planes, which its channels {self.channels} do not give"
            )
        needed = self.planes is not None and self.normalise == "dataset"
        moments = [self.mean, self.std]
        if (needed or moments != [None, None]) and not all(values and len(values) == planes for values in moments):
            raise InputError(f"{path}: its config lacks the mean and std of its {planes} planes")


NETWORK = (
    "model",
    "head",
    "class_names",
    "channels",
    "planes",
    "size",
    "fit",
    "normalise",
    "amp",
    "batch_size",
)  # to rebuild it
IGNORED_ON_RESUME = {each.name for each in fields(RunConfig) if each.metadata["ignored_on_resume"]}
OPTIONS = [each.name for each in fields(RunConfig) if each.metadata["is_option"]]
DEFAULTS = {each.name: each.default for each in fields(RunConfig) if each.name in OPTIONS and each.default is not None}
