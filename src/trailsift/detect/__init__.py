"""From the summary tables to the few things worth a look.

Levels read summaries and give signals: what is new for a role (``novel``), how much it does by its own rhythm and when
it works (``volume``), and what it takes a little more of for days (``drip``). Signals of a role that belong together
become one finding (``join``), which says in a sentence what happened (``tell``). ``run`` goes through all of it;
``evaluate`` measures it on logs with planted incidents.
"""
