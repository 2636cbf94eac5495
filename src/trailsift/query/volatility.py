"""Which SQL functions always return the same value for the same arguments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from trailsift.query.relations import FUNCTIONS, texts

if TYPE_CHECKING:
    import duckdb

#: Known to be consistent without a look into DuckDB's list of functions, which takes 25 ms.
# fmt: off
_COMMON = frozenset((
    "!~~", "!~~*", "%", "*", "+", "-", "/", "//", "<", "<=", "<>", "=", ">", ">=", "^", "abs", "any_value",
    "approx_count_distinct", "approx_quantile", "arg_max", "arg_min", "array_agg", "avg", "ceil", "coalesce",
    "concat", "contains", "count", "count_if", "count_star", "cume_dist", "date_diff", "date_part", "date_trunc",
    "dense_rank", "distinct_count", "ends_with", "epoch", "epoch_us", "extract", "first", "first_value", "flatten",
    "floor", "generate_series", "greatest", "hash", "hour", "json_each", "json_extract", "json_extract_string",
    "json_tree", "lag", "last", "last_value", "lead", "least", "left", "len", "length", "list", "list_contains",
    "list_distinct", "list_sort", "list_value", "lower", "ltrim", "max", "max_by", "md5", "median",
    "merge_sketches", "min", "min_by", "minute", "mode", "month", "nth_value", "ntile", "parse_path",
    "percent_rank", "quantile_cont", "quantile_disc", "range", "rank", "regexp_extract", "regexp_full_match",
    "regexp_matches", "regexp_replace", "repeat", "repeat_row", "replace", "right", "round", "row_number", "rtrim",
    "split_part", "starts_with", "stddev", "stddev_pop", "stddev_samp", "strftime", "string_agg", "string_split",
    "strlen", "strptime", "struct_pack", "substr", "substring", "sum", "time_bucket", "to_days", "to_hours",
    "to_json", "to_minutes", "to_months", "to_seconds", "to_timestamp", "to_weeks", "to_years", "trim", "trunc",
    "unnest", "upper", "var_pop", "var_samp", "year", "||", "~~", "~~*",
)) | frozenset(FUNCTIONS)
# fmt: on


def are_consistent(names: Iterable[str], cursor: duckdb.DuckDBPyConnection) -> bool:
    """Return whether DuckDB declares every function of these names consistent."""
    unsure = sorted(set(names) - _COMMON)
    if not unsure:
        return True
    rows = cursor.execute(
        "SELECT function_name, bool_and(coalesce(stability = 'CONSISTENT', function_type = 'table'))"
        f" FROM duckdb_functions() WHERE list_contains({texts(unsure)}, function_name) GROUP BY function_name"
    ).fetchall()
    consistent = {name for name, declared in rows if declared}
    return consistent.issuperset(unsure)
