"""The gates, one module for each kind of record: they turn two comparable sides into judged metrics.

All tests are one-sided towards "worse". The gated tests of a comparison share `alpha`: by Holm's correction if each has
a p-value, in equal parts if one has only an interval. An interval has the level 1 - 2 alpha (90% for the usual 5%), so
its lower end is that of a one-sided test. Changes are in points or per cent.
"""
