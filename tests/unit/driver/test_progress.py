import io
import threading

import pytest

from ladder_search.console import Console
from ladder_search.driver.progress import Progress, time_left
from ladder_search.record.trial import TrialRecord
from ladder_search.studies import find_study

WITH_TARGET = find_study("mnist-100-full")
WITHOUT_TARGET = find_study("digits-100")


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Watched:
    """A progress without a terminal, its clock and what it printed."""

    def __init__(self, study=WITH_TARGET, total=10, concurrency=2, **console):
        self.clock, self.file = Clock(), io.StringIO()
        self.console = Console(file=self.file, width=100, **console)
        self.progress = Progress(study, total, concurrency, self.console, clock=self.clock)

    @property
    def lines(self):
        return self.file.getvalue().splitlines()


def trial(number, state="COMPLETE", error=0.02, name="", seconds=100.0):
    return TrialRecord(
        key=f"t{number:04d}",
        number=number,
        name=name,
        state=state,
        reason="",
        params={},
        settings={},
        epochs=(),
        validation_error=error,
        seconds=seconds,
        checkpoint=None,
    )


@pytest.mark.parametrize(
    ("durations", "running", "waiting", "concurrency", "expected"),
    [
        ([], [(50.0, 0.5)], 8, 2, None),  # nothing has ended
        ([100.0], [], 0, 2, 0.0),  # all have ended
        ([100.0], [], 4, 2, 200.0),  # four of 100 s, two at a time
        ([100.0, 20.0], [], 4, 1, 240.0),  # a stopped one counts: mean 60
        ([100.0], [(40.0, 0.4)], 0, 2, 60.0),  # the rest of the average
        ([100.0], [(150.0, 0.75)], 0, 2, 50.0),  # longer than the average: its own pace, a quarter is left
        ([100.0], [(150.0, 0.0)], 0, 2, 100.0),  # longer, and never reported
        ([100.0], [(0.0, 0.0), (90.0, 0.9)], 1, 4, 100.0),  # never less than the longest of them
        ([100.0], [(50.0, 0.5), (50.0, 0.5)], 2, 2, 150.0),  # (50 + 50 + 200) / 2
        ([100.0], [], 1, 0, 100.0),  # a concurrency of 0 is read as 1
        ([100.0], [], -3, 2, 0.0),  # more trials than were announced
    ],
)
def test_time_left(durations, running, waiting, concurrency, expected):
    assert time_left(durations, running, waiting, concurrency) == (
        None if expected is None else pytest.approx(expected)
    )


def test_a_line_when_a_trial_ends():
    watched = Watched()
    with watched.progress as progress:
        for number in range(2):
            progress.started(f"t{number:04d}")
        watched.clock.now += 10.0
        progress.ended(trial(0, name="published", error=0.015, seconds=10.0))
        progress.ended(trial(1, "PRUNED", error=0.3, seconds=10.0))
    assert watched.lines == [
        "t0000 (published) COMPLETE 1.50 %: 1 done, 1 running, 0 stopped, 0 failed of 10; "
        "best so far 1.50 % (t0000), target 1.06 % ± 0.37; time left 45 s",  # (10 + 8 * 10) / 2
        "t0001 PRUNED 30.00 %: 1 done, 0 running, 1 stopped, 0 failed of 10; "
        "best so far 1.50 % (t0000), target 1.06 % ± 0.37; time left 40 s",
    ]


def test_at_most_one_line_in_30_seconds_besides():
    watched = Watched()
    with watched.progress as progress:
        progress.started("t0000")
        for _ in range(100):
            watched.clock.now += 1.0
            progress.reported("t0000", 1, 10, 0.5)
    assert len(watched.lines) == 3  # after 30, 60 and 90 seconds
    assert watched.lines[0] == (
        "0 done, 1 running, 0 stopped, 0 failed of 10; best so far –, target 1.06 % ± 0.37; time left –"
    )


def test_a_trials_end_starts_the_30_seconds_anew():
    watched = Watched()
    with watched.progress as progress:
        watched.clock.now += 29.0
        progress.ended(trial(0))
        watched.clock.now += 29.0
        progress.started("t0001")
    assert len(watched.lines) == 1


def test_the_baseline_stands_beside_the_best_where_there_is_no_target():
    watched = Watched(WITHOUT_TARGET)
    assert "best so far –; time left –" in watched.progress.summary()
    watched.progress.ended(trial(0, name="supervised baseline", error=0.01))
    watched.progress.ended(trial(1, error=0.03))
    watched.progress.ended(trial(2, error=0.02))
    watched.progress.ended(trial(3, "PRUNED", error=0.001))
    watched.progress.ended(trial(4, error=float("nan")))
    assert "best so far 2.00 % (t0002), supervised baseline 1.00 %" in watched.progress.summary()


def test_trials_of_an_earlier_run_count_and_print_nothing():
    watched = Watched(total=4, concurrency=1)
    watched.progress.resumed([trial(0, seconds=40.0), trial(1, "FAIL", error=None, seconds=20.0)])
    assert watched.lines == []
    assert watched.progress.summary().startswith("1 done, 0 running, 0 stopped, 1 failed of 4; best so far 2.00 %")
    assert watched.progress.summary().endswith("time left 1 min 00 s")  # two waiting of 30 s


def test_the_same_event_twice_counts_once():
    watched = Watched()
    progress = watched.progress
    for _ in range(2):
        progress.started("t0000")
        progress.reported("t0000", 1, 10, 0.5)
    for _ in range(2):
        progress.ended(trial(0))
    progress.reported("t0000", 9, 10, 0.4)  # overtaken by the end
    assert progress.summary().startswith("1 done, 0 running")


def test_a_trial_that_starts_again_after_its_end_is_running():
    watched = Watched()
    watched.progress.ended(trial(0, "FAIL", error=None))
    watched.progress.started("t0000")
    assert watched.progress.summary().startswith("0 done, 1 running, 0 stopped, 0 failed")


def test_more_trials_than_were_announced():
    watched = Watched(total=1)
    watched.progress.ended(trial(0))
    watched.progress.ended(trial(1))
    assert "2 done, 0 running, 0 stopped, 0 failed of 2" in watched.lines[-1]


def test_a_terminal_is_redrawn_in_place(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    watched = Watched(terminal=True)
    with watched.progress as progress:
        for number in range(11):
            progress.started(f"t{number:04d}")
            progress.reported(f"t{number:04d}", 3, 10, 0.125)
        progress.ended(trial(0, error=0.015))
    text = watched.file.getvalue()
    assert "1 done, 10 running, 0 stopped, 0 failed of 11" in text
    assert "epoch 3/10" in text and "12.50 %" in text and "… and 2 more" in text
    assert "t0000 COMPLETE" not in text  # no line of the plain view


def test_a_dumb_terminal_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    watched = Watched(terminal=True)
    with watched.progress as progress:
        progress.ended(trial(0))
    assert len(watched.lines) == 1


def test_a_search_with_no_trial_is_shown(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    watched = Watched(total=0, concurrency=0, terminal=True)
    with watched.progress:
        pass
    assert "of 0" in watched.file.getvalue()


class Broken(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("error", [BrokenPipeError("the reader is gone"), OSError("disk full"), ValueError("closed")])
def test_a_display_that_breaks_never_stops_the_search(terminal, error, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    console = Console(file=Broken(error), terminal=terminal, width=80)
    with Progress(WITH_TARGET, 4, 2, console) as progress:
        progress.started("t0000")
        progress.reported("t0000", 1, 0, None)
        progress.reported("t0000", "one", None, "half")  # what no caller should send
        progress.ended(trial(0, seconds=float("nan")))
        progress.ended(None)
        progress.resumed(None)
    assert "1 done" in progress.summary()


def test_the_searchs_own_error_passes_through():
    with pytest.raises(KeyError), Watched().progress:
        raise KeyError("of the search")


def test_events_from_many_threads():
    watched = Watched(total=200)

    def run(first):
        for number in range(first, first + 50):
            watched.progress.started(f"t{number:04d}")
            watched.progress.reported(f"t{number:04d}", 1, 2, 0.5)
            watched.progress.ended(trial(number))

    threads = [threading.Thread(target=run, args=(first,)) for first in (0, 50, 100, 150)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert watched.progress.summary().startswith("200 done, 0 running, 0 stopped, 0 failed of 200")
    assert len(watched.lines) == 200


def test_nats_are_no_percentages(judged_by, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    watched = Watched(judged_by("nll"))
    with watched.progress as progress:
        progress.started("t0000")
        progress.reported("t0000", 1, 4, 9.25)
        progress.ended(trial(0, error=8.5))
    assert watched.lines[0].startswith("t0000 COMPLETE 8.500 nats per step: 1 done")
    assert "best so far 8.500 nats per step (t0000), target 8.450 nats per step ± 0.030" in watched.lines[0]
    watched = Watched(judged_by("nll", target=None), terminal=True)
    with watched.progress as progress:
        progress.reported("t0001", 1, 4, 9.25)
        progress.ended(trial(0, error=8.5, name="supervised baseline"))
    assert "best so far –, supervised baseline 8.500 nats per step" in watched.file.getvalue()
    assert "9.250 nats per step" in watched.file.getvalue() and "%" not in watched.file.getvalue()
