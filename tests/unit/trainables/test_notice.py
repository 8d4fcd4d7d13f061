"""What moves a trial to another process is not an error of the user's."""

from __future__ import annotations

import pytest

from ladder_search.errors import LadderSearchError, ResourceError
from trainables.base import MachineGoesError
from trainables.desk import HostSeat
from trainables.notice import TrialMovesError
from trainables.pack_host import SeatLostError


@pytest.mark.parametrize("moves", [SeatLostError, MachineGoesError])
def test_a_moving_trial_is_no_error_of_a_user(moves: type[Exception]) -> None:
    assert issubclass(moves, TrialMovesError) and not issubclass(moves, LadderSearchError)


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (SeatLostError("its host has died"), None),
        (ResourceError("no source"), "no source"),
        (MemoryError("out of memory"), "out of memory"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_a_lost_seat_is_not(
    error: Exception, refused: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sit(seat: HostSeat, checkpoint: str) -> int:
        raise error

    monkeypatch.setattr(HostSeat, "_sit", sit)
    seat = HostSeat.__new__(HostSeat)
    seat._host = None
    if refused is None:
        with pytest.raises(SeatLostError):
            seat.train(1, lambda: False)
    else:
        assert seat.train(1, lambda: False).refused == refused
