"""Columns: what each is read as, what is left out with a reason, and what is refused."""

from __future__ import annotations

import datetime
import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ladder_search.data.files import RowSchema, schema_of
from ladder_search.data.files.profile import profile
from ladder_search.data.files.rows import of_arrays
from ladder_search.errors import DataError

N = 40
RNG = np.random.default_rng(3)
NUMBER = RNG.normal(size=N)


def notes_of(table: dict[str, Any]) -> list[str]:
    return list(profile([pa.table(table).to_batches()]).notes)


def test_a_missing_value_is_nan_with_an_indicator_only_where_training_rows_lack_it() -> None:
    schema = schema_of({"a": [1.5, None, 2.5], "b": [1, 2, 4]})
    assert schema.input_names == ["a", "a is missing", "b"]
    np.testing.assert_array_equal(schema.scaled, [True, False, True])
    encoded = schema.encode({"a": [None, 3.0], "b": [float("nan"), 2.0]})
    np.testing.assert_array_equal(encoded, np.array([[np.nan, 1, np.nan], [3, 0, 2]], np.float32))


def test_a_category_is_one_hot_over_the_values_of_the_training_rows() -> None:
    schema = schema_of({"c": ["red", "green", None, "red", " "], "d": [True, False, True, True, None]})
    assert schema.input_names == ["c=green", "c=red", "c is missing", "d", "d is missing"]
    encoded = schema.encode({"c": ["red", None], "d": [True, False]})
    np.testing.assert_array_equal(encoded, [[0, 1, 0, 1, 0], [0, 0, 1, 0, 0]])


def test_numbers_may_be_named_as_categories() -> None:
    schema = schema_of({"code": [3, 1, 3, 2], "n": NUMBER[:4]}, categories=["code"])
    assert schema.input_names == ["code=1", "code=2", "code=3", "n"]
    # A text file reads whole numbers as floats, and another program may write them as text.
    for code in ([1.0, 3.0], ["1", "3"], [1, 3]):
        np.testing.assert_array_equal(schema.encode({"code": code, "n": [0.0, 0.0]})[:, :3], [[1, 0, 0], [0, 0, 1]])


def test_vectors_are_columns_of_numbers() -> None:
    table = pa.table({"v": pa.array([[1.0, 2.0], [3.0, 5.0], [4.0, 4.0]]), "w": pa.array(NUMBER[:3])})
    schema = schema_of(table)
    assert schema.input_names == ["v0", "v1", "w"] and schema.names == ("v", "w")
    np.testing.assert_array_equal(schema.encode(table.slice(1, 1))[0, :2], [3, 5])
    with pytest.raises(DataError, match="one length, found 1 and 2"):
        schema_of({"v": [[1.0], [1.0, 2.0]]})
    with pytest.raises(DataError, match="'v' must have 2 numbers"):
        schema.encode({"v": [[1.0]], "w": [1.0]})


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ([1.0] * N, "it is 1 in all rows"),
        (["x"] * N, "it is 'x' in all rows"),
        (pa.nulls(N), "it has no values"),
        (pa.nulls(N, pa.float64()), "it has no values"),
        (NUMBER, "it equals the column 'other'"),
        (range(1, N + 1), "it numbers the rows"),
        ([3 * i for i in range(N)], None),
    ],
)
def test_columns_that_cannot_help_are_left_out_with_a_reason(column: Any, reason: str | None) -> None:
    notes = notes_of({"other": NUMBER, "extra": column})
    assert notes == ([f"the column 'extra' is left out: {reason}"] if reason else [])


def test_an_ascending_column_with_gaps_is_an_index_by_its_name() -> None:
    for name in ("id", "customer_id", "Unnamed: 0", "index", ""):
        assert notes_of({"other": NUMBER, name: [7 * i for i in range(N)]}) != []
    assert notes_of({"other": NUMBER, "humid": [7 * i for i in range(N)]}) == []


def test_two_columns_of_text_are_equal_only_value_by_value() -> None:
    assert notes_of({"a": ["ab", "c"] * 20, "b": ["a", "bc"] * 20}) == []
    assert notes_of({"a": ["ab", "c"] * 20, "b": ["ab", "c"] * 20}) == [
        "the column 'b' is left out: it equals the column 'a'"
    ]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([datetime.date(2024, 1, 1 + i % 28) for i in range(N)], "dates and times are not read, the column 'bad'"),
        ([datetime.datetime(2024, 1, 1 + i % 28) for i in range(N)], "dates and times are not read"),
        ([datetime.time(i % 24) for i in range(N)], "dates and times are not read"),
        (
            [f"text number {i}" for i in range(N)],
            r"free text is not read, the column 'bad' has 40 different",
        ),
        ([str(i) for i in range(N - 1)] + ["many"], "'bad' has both, for example .* and 'many'"),
        ([0.5] * (N - 1) + [float("inf")], r"'bad' has inf in row 40; correct it"),
        ([0.5] * (N - 1) + [1e39], r"'bad' has 1e\+39 in row 40"),
        ([{"a": 1, "b": 2}] * N, "'bad' has struct"),
    ],
)
def test_columns_that_would_mislead_are_refused_by_name(column: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        notes_of({"other": NUMBER, "bad": column})
    assert "bad" in str(caught.value)
    assert schema_of({"other": NUMBER, "bad": column}, leave_out=["bad"]).input_names == ["other"]


def test_mixed_types_of_a_data_frame_are_refused() -> None:
    with pytest.raises(DataError, match="columns have one type each"):
        schema_of(pd.DataFrame({"a": [1, "x", 2.5], "b": [1, 2, 3]}))


def test_nothing_left_is_refused_with_the_reasons() -> None:
    with pytest.raises(DataError, match="a column that differs between rows, there is none .'a': it is 1 in all rows"):
        schema_of({"a": [1.0] * N})


def test_too_many_columns_and_unknown_names_are_refused() -> None:
    with pytest.raises(DataError, match="'colour' is none; did you mean 'color'"):
        schema_of({"color": ["a", "b"]}, leave_out=["colour"])


RAW = {"age": [31, None, 55, 40], "city": ["Bonn", "Ulm", "Bonn", "Ulm"], "x": NUMBER[:4]}
SCHEMA = schema_of(RAW, target=None)


def test_the_same_rows_are_encoded_equally_from_every_kind_of_table() -> None:
    expected = SCHEMA.encode(pa.table(RAW))
    for rows in (RAW, pd.DataFrame(RAW), pa.record_batch(RAW), pd.DataFrame(RAW).astype({"city": "category"})):
        np.testing.assert_array_equal(SCHEMA.encode(rows), expected)
    for i in range(4):
        np.testing.assert_array_equal(SCHEMA.encode(pd.DataFrame(RAW).iloc[i : i + 1]), expected[i : i + 1])


def test_the_order_of_columns_and_further_columns_do_not_matter() -> None:
    shuffled = {"more": ["?"] * 4, **dict(reversed(RAW.items()))}
    np.testing.assert_array_equal(SCHEMA.encode(shuffled), SCHEMA.encode(RAW))


def test_an_array_of_numbers_has_columns_by_number() -> None:
    x = RNG.normal(size=(20, 3))
    schema = schema_of(x)
    assert schema.names == ("x0", "x1", "x2")
    np.testing.assert_array_equal(schema.encode(x), x.astype(np.float32))
    with pytest.raises(DataError, match="need the column 'x2', which they lack"):
        schema.encode(x[:, :2])
    with pytest.raises(DataError, match="numbers of two dimensions"):
        schema.encode(x[0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"city": None}, "rows need the column 'city', which they lack; add it; the rows have age, x"),
        ({"city": None, "City": ["Bonn"] * 4}, "'city', which they lack; rename 'City', or add it"),
        ({"city": ["Bonn", "Ulm", "Ulm", "Köln"]}, "'city' has 'Köln' in row 4 and they have Bonn, Ulm"),
        ({"age": ["31", "old", "3", "4"]}, "the column 'age' must have numbers, it has text"),
        ({"age": [1.0, float("inf"), 2.0, 3.0]}, "'age' has inf in row 2"),
        ({"age": [datetime.date(2024, 1, 1)] * 4}, "the column 'age' must have numbers, it has date32"),
        ({"city": [datetime.date(2024, 1, 1)] * 4}, "'city' must be text or numbers"),
    ],
)
def test_rows_that_do_not_suit_the_schema_are_refused(changed: dict[str, Any], message: str) -> None:
    rows = {name: values for name, values in {**RAW, **changed}.items() if values is not None}
    with pytest.raises(DataError, match=message):
        SCHEMA.encode(rows)


def test_numbers_written_as_text_are_numbers_and_unseen_values_may_be_read_as_missing() -> None:
    np.testing.assert_array_equal(SCHEMA.encode({**RAW, "age": ["31", "", "55", "40"]}), SCHEMA.encode(RAW))
    encoded = SCHEMA.encode({**RAW, "city": ["Bonn", "Ulm", "Ulm", "Köln"]}, unseen="missing")
    cities = [SCHEMA.input_names.index(name) for name in ("city=Bonn", "city=Ulm")]
    np.testing.assert_array_equal(encoded[3, cities], [0, 0])


def test_a_schema_is_its_json_and_back() -> None:
    again = RowSchema.from_json(json.loads(json.dumps(SCHEMA.as_json())))
    assert again == SCHEMA
    np.testing.assert_array_equal(again.encode(RAW), SCHEMA.encode(RAW))
    with pytest.raises(DataError, match="has the format"):
        RowSchema.from_json({"columns": []})


def test_images_of_an_array_are_encoded_in_0_to_1() -> None:
    images = RNG.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
    table = next(of_arrays("memory", images, None).batches())
    schema = schema_of(table)
    encoded = schema.encode(table)
    np.testing.assert_allclose(encoded, images.transpose(0, 3, 1, 2).reshape(6, -1) / np.float32(255), rtol=1e-6)
    np.testing.assert_array_equal(schema.encode_pixels(table), images.transpose(0, 3, 1, 2).reshape(6, -1))
    other = next(of_arrays("memory", images[:, :3], None).batches())
    with pytest.raises(DataError, match="images must have 3 x 4 x 5 numbers, got 3 x 3 x 5"):
        schema.encode(other)
