# SPDX-License-Identifier: Apache-2.0
"""Which integers make a matrix product exact in a data type, whatever the order of its additions. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: A sum stays below its mean plus this many standard deviations in every element of every product.
_DEVIATIONS = 10


@dataclass(frozen=True)
class Exact:
    """Operands: integers up to ``magnitude`` in size, one in ``one_in`` of them not zero."""

    magnitude: int
    one_in: int


#: Largest integer up to which every integer is exact in what the product is given or summed in, and the size of the
#: operands: bf16 has 8 bits of significand, fp16 11, fp32 24; int8 is summed in int32.
_LIMITS = {"bfloat16": (1 << 8, 1), "float16": (1 << 11, 3), "float32": (1 << 24, 31), "int8": (1 << 31, 127)}


def exact_operands(dtype: str, terms: int) -> Exact:
    """Return operands whose products of ``terms`` terms are exact: even the sum of the terms' sizes is representable.

    Then every partial sum is as well, and a reduction in any order, also one that is split and rounded to the result's
    type in between, gives the same bits. KeyError: the data type has no exact products.
    """
    limit, magnitude = _LIMITS[dtype]
    mean_size = (magnitude + 1) / 2
    mean_square = (magnitude + 1) * (2 * magnitude + 1) / 6
    one_in = 1
    while True:
        mean = terms * (mean_size / one_in) ** 2
        deviation = math.sqrt(terms) * mean_square / one_in
        if mean + _DEVIATIONS * deviation <= limit:
            return Exact(magnitude, one_in)
        one_in += 1
