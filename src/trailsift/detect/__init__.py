"""From the summary tables to the few things worth a look.

Three levels read summaries and give signals: what is new for a role (``novel``), how much it does by its own rhythm
(``volume``), and when it works (``volume`` as well). Signals of a role that belong together become one finding
(``join``), which says in a sentence what happened (``tell``). ``run`` goes through all of it; ``evaluate`` measures
it on logs with planted incidents.
"""
