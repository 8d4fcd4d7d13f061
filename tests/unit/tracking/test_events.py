import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladder_search.errors import TrackingError
from ladder_search.tracking.events import (
    Artifact,
    Close,
    CloseStale,
    End,
    Event,
    Header,
    Metrics,
    Start,
    Tags,
    event_line,
    header_line,
    parse_event,
    parse_header,
)
from ladder_search.tracking.protocol import DatasetInput, MetricPoint

texts = st.text(max_size=20)
times = st.integers(0, 2**62)
mappings = st.dictionaries(texts, texts, max_size=3)
datasets = st.builds(DatasetInput, name=texts, digest=texts, rows=st.dictionaries(texts, times, max_size=3))
points = st.builds(
    MetricPoint,
    name=texts,
    value=st.floats(allow_nan=False, allow_infinity=False),
    step=st.integers(-(2**62), 2**62),
    time_ms=times,
)
events = st.one_of(
    st.builds(Start, texts, texts, times, mappings, mappings, st.none() | texts, st.none() | datasets),
    st.builds(Metrics, texts, st.lists(points, max_size=4).map(tuple)),
    st.builds(Tags, texts, mappings),
    st.builds(Artifact, texts, texts, texts),
    st.builds(End, texts, st.sampled_from(["FINISHED", "KILLED", "FAILED"]), times),
    st.builds(CloseStale, texts, st.lists(texts, max_size=3).map(tuple), times),
    st.builds(Close, times),
)


@given(st.integers(1, 2**62), events)
def test_an_event_is_one_line_and_comes_back_as_it_was(n: int, event: Event) -> None:
    line = event_line(n, event)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert parse_event(line) == (n, event)


def test_no_line_holds_a_number_that_is_not_finite() -> None:
    with pytest.raises(ValueError):
        event_line(1, Metrics("k", (MetricPoint(name="m", value=float("nan"), step=0, time_ms=0),)))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]\n",
        b"{}\n",
        b'{"n":1}\n',
        b'{"n":1,"e":"dance"}\n',
        b'{"n":1,"e":"end","key":"k","status":"HAPPY","time":0}\n',
        b'{"n":1,"e":"metrics","key":"k","points":[["m",1]]}\n',
        b'{"n":1,"e":"tags","key":"k","tags":3}\n',
        b"\xff\xfe\n",
        b'{"n":1,"e":"tags","key":"k","tags":{}',
    ],
)
def test_a_line_that_is_no_event_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError):
        parse_event(line)


def test_header() -> None:
    header = Header("0a", "digits-100")
    assert parse_header(header_line(header)) == header
    with pytest.raises(TrackingError, match="starts with a header line"):
        parse_header(b"hello\n")
    with pytest.raises(TrackingError, match="version 1, this one is 2"):
        parse_header(header_line(header).replace(b'"ladder_spool":1', b'"ladder_spool":2'))
