"""The functions that a translated statement may call: sqlglot writes names that it does not know as they are."""

from __future__ import annotations

_NAMES = """
abs acos all_match any_match any_value approx_distinct approx_most_frequent approx_percentile arbitrary array
array_agg array_distinct array_except array_histogram array_intersect array_join array_max array_min array_position
array_remove array_sort array_union arrays_overlap asin at_timezone atan atan2 avg bit_count bool_and bool_or
cardinality case cast cbrt ceil ceiling checksum chr coalesce codepoint combinations concat concat_ws contains
contains_sequence cos cosh count count_if cume_dist current_date current_timestamp current_timezone date date_add
date_diff date_format date_parse date_trunc day day_of_month day_of_week day_of_year degrees dense_rank dow doy e
element_at every exists exp extract filter first_value flatten floor format_datetime format_number from_big_endian_32
from_big_endian_64 from_hex from_iso8601_date from_iso8601_timestamp from_iso8601_timestamp_nanos from_unixtime
from_unixtime_nanos from_utf8 greatest grouping histogram hour if infinity interval is_finite is_infinite
is_json_scalar is_nan json_array_contains json_array_get json_array_length json_extract json_extract_scalar
json_format json_parse lag last_day_of_month last_value lead least length listagg ln localtimestamp log log10 log2
lower lpad ltrim map map_agg map_concat map_entries map_filter map_from_entries map_keys map_union map_values
map_zip_with max max_by md5 millisecond min min_by minute mod month nan ngrams none_match normalize now nth_value
ntile nullif parse_datetime percent_rank pi position pow power quarter radians rank reduce reduce_agg regexp_count
regexp_extract regexp_extract_all regexp_like regexp_position regexp_replace regexp_split repeat replace reverse round
row row_number rpad rtrim second sequence sha1 sha256 sha512 sign sin sinh slice split split_part split_to_map sqrt
starts_with stddev stddev_pop stddev_samp strpos substr substring sum tan tanh timezone to_big_endian_32
to_big_endian_64 to_hex to_iso8601 to_milliseconds to_unixtime to_utf8 transform transform_keys transform_values
translate trim trim_array truncate try try_cast typeof unnest upper url_decode url_encode var_pop var_samp variance
week week_of_year width_bucket with_timezone xxhash64 year year_of_week yow zip zip_with
"""
#: Functions of Athena's engine version 3 that fit our tables, and special forms.
#: https://docs.aws.amazon.com/athena/latest/ug/functions-env3.html, https://trino.io/docs/current/functions/list.html
FUNCTIONS = frozenset(_NAMES.split())
