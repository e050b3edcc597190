"""The rules that turn records into verdicts: policy, comparability, and one rule per kind of record."""
