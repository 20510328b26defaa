"""TensorBoard's events are an extra: a training goes on without."""

import json
import resource

from conftest import kit, train_options
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from utils.engine.tensorboard_log import TensorBoardLog


def test_events_end_where_the_room_does(tmp_path, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        board = TensorBoardLog(tmp_path / "events", 1)
        for step in range(300):
            board.add_scalars([("a", step / 2, step)])
        board.add_scalars([("a", 1, 301)])
        board.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1 and "File too large" in printed.out and printed.err == ""
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    kept = [(point.step, point.value) for point in events.Scalars("a")]
    assert 10 < len(kept) < 300 and kept == [(step, step / 2) for step in range(len(kept))]


def test_a_training_goes_on_without_events(atlas, folds, tmp_path):
    fold = tmp_path / "mini/fold0"
    fold.mkdir(parents=True)
    (fold / "tensorboard").write_text(json.dumps("a file"))
    result = kit("train", *train_options(atlas, folds, tmp_path, epochs=1))
    assert result.code == 0 and result.out.count("TensorBoard's events are no longer written") == 1
    assert result.err == ""
