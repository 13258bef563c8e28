"""Intervals, tests and rates for tables. Knows nothing of judges, engines or suites.

Every function takes plain sequences and returns plain numbers; randomness is a seed.
"""

from __future__ import annotations

from ringfence.statistics.attempts import (
    AttackRate,
    asr_at_k,
    breached_within,
    par,
)
from ringfence.statistics.clusters import (
    clustered_error,
    clustered_rate,
    shared_correlation,
)
from ringfence.statistics.diversity import (
    distinct_n,
)
from ringfence.statistics.intervals import (
    Interval,
    clopper_pearson,
    sum_of_rates,
    wilson,
)
from ringfence.statistics.paired import (
    detectable_difference,
    holm,
    mcnemar_clustered,
    mcnemar_exact,
)
from ringfence.statistics.ranking import (
    Bin,
    auroc,
    auroc_interval,
    expected_calibration_error,
    reliability,
    tpr_at_fpr,
)
from ringfence.statistics.ratios import (
    Ratios,
    ratio_detectable,
    ratio_difference,
    ratio_test,
)
from ringfence.statistics.resampling import (
    RESAMPLES,
    bootstrap_mean,
    clustered_bootstrap_difference,
    clustered_bootstrap_mean,
    paired_bootstrap_difference,
)

__all__ = [
    "AttackRate",
    "Bin",
    "Interval",
    "RESAMPLES",
    "Ratios",
    "asr_at_k",
    "auroc",
    "auroc_interval",
    "bootstrap_mean",
    "breached_within",
    "clopper_pearson",
    "clustered_bootstrap_difference",
    "clustered_bootstrap_mean",
    "clustered_error",
    "clustered_rate",
    "detectable_difference",
    "distinct_n",
    "expected_calibration_error",
    "holm",
    "mcnemar_clustered",
    "mcnemar_exact",
    "paired_bootstrap_difference",
    "par",
    "ratio_detectable",
    "ratio_difference",
    "ratio_test",
    "reliability",
    "shared_correlation",
    "sum_of_rates",
    "tpr_at_fpr",
    "wilson",
]
