"""The gates, one module for each kind of record: they turn two comparable sides into judged metrics.

All tests are one-sided towards "worse". The gated tests of a comparison share `alpha`: by Holm's correction if each has
a p-value, in equal parts if one has only an interval. Stored speed has a level of its own. An interval has the level
1 - 2 alpha (90% for 5%), so its lower end is that of a one-sided test. Changes are in points or per cent.
"""
