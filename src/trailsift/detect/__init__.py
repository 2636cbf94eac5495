"""From the summary tables to the few findings worth a look.

Reading order:

1. ``finding``: signals, links and findings. ``pipeline``: the whole run. ``signals``: all levels, day by day.
2. Data: ``daily_data`` and ``egress`` read the summary tables, ``features`` turns hours into rows of numbers.
3. Levels: ``baseline`` remembers the past; ``novelty`` (first seen), ``volume`` (surges, off-hours), ``low_and_slow``
   (a little more every day; with ``daily_series`` and ``expectation``), ``multivariate`` (outliers),
   ``detection_rules`` (known bad, as data). ``rescore`` checks the strongest surges again.
4. From signals to findings: ``correlate`` joins what belongs together, ``finding_ids`` keeps ids stable, ``describe``
   writes the sentences, ``triage`` holds people's verdicts.
5. Runs: ``checkpoint`` lets a run read only what changed, ``follow`` waits for commits, ``notify`` reports findings.
6. Quality: ``evaluation`` compares with planted incidents, ``experiment`` repeats that over seeds, ``rule_impact``
   shows what findings lose if rules drop events.
"""
