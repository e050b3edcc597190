"""The gates of `compare`, one module a kind of record: two sides that may be compared become judged metrics.

All tests are one-sided towards "worse", and `alpha` is shared by the gated tests of a comparison: Holm's correction
where each has a p-value, an equal part of alpha where one has an interval alone. An interval has the level 1 - 2 alpha
(90% for the usual 5%), so that its lower end is what a one-sided test says. Changes are in points or per cent.
"""
