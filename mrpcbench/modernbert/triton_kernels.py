"""The Triton kernels of `modernbert.fused`. All compute in float32, and read and write any floating dtype.

Sizes of the model are constants of a kernel, numbers of tokens are not: another batch compiles nothing. Where a program
of one warp handles a token, its sums need no barrier, and a single pair occupies as many processors as it can.
"""

import triton
import triton.language as tl

# --- rotation ---------------------------------------------------------------------------------------------------------


# With an odd number of tokens, positions are not aligned to 16 bytes. A program reads only one of them.
@triton.jit(do_not_specialize_on_alignment=["positions"])
def rotate(
    query,
    key,
    value,
    target,
    positions,
    table,
    source_stride: tl.constexpr,
    table_stride: tl.constexpr,
    heads: tl.constexpr,
    size: tl.constexpr,
    backward: tl.constexpr,
    block_heads: tl.constexpr,
    block_half: tl.constexpr,
):
    """Rotate query and key [T, H, D] into `target`, [T, 2, H, D], by the row of `table` for each position.

    Backward, they are gradients. The rotation has the opposite angle, and `target`, [T, 3, H, D], has `value` too.
    """
    half: tl.constexpr = size // 2
    part: tl.constexpr = heads * size
    row = tl.program_id(0).to(tl.int64)
    head, place = tl.arange(0, block_heads)[:, None], tl.arange(0, block_half)[None, :]
    inside = (head < heads) & (place < half)
    first = head * size + place
    second = first + half
    source, target = row * source_stride, target + row * ((3 if backward else 2) * part)
    query_first, query_second = tl.load(query + source + first, inside), tl.load(query + source + second, inside)
    key_first, key_second = tl.load(key + source + first, inside), tl.load(key + source + second, inside)
    angles = table + tl.load(positions + row) * table_stride + place
    cosines = tl.load(angles, place < half).to(tl.float32)
    sines = tl.load(angles + size + half, place < half).to(tl.float32)  # the first half has the opposite sign
    if backward:
        sines = -sines
    query_first, query_second = query_first.to(tl.float32), query_second.to(tl.float32)
    tl.store(target + first, query_first * cosines - query_second * sines, inside)
    tl.store(target + second, query_second * cosines + query_first * sines, inside)
    key_first, key_second = key_first.to(tl.float32), key_second.to(tl.float32)
    tl.store(target + part + first, key_first * cosines - key_second * sines, inside)
    tl.store(target + part + second, key_second * cosines + key_first * sines, inside)
    if backward:
        tl.store(target + 2 * part + first, tl.load(value + source + first, inside), inside)
        tl.store(target + 2 * part + second, tl.load(value + source + second, inside), inside)


# --- gate -------------------------------------------------------------------------------------------------------------


@triton.jit
def _gate_places(rows, width: tl.constexpr, block: tl.constexpr):
    """Offsets of a program's elements in [rows, width], below 2^31, and in [rows, 2 · width], and which of them exist.

    A comparison of rows has the same result for neighbours, which allows wide reads. One of offsets has not.
    """
    inner = tl.program_id(0) * block + tl.arange(0, block)
    row = inner // width
    return inner, row.to(tl.int64) * width + inner, row < rows


@triton.jit
def _normal(value):
    """The standard normal distribution function of `value`, float32, and its density.

    The error is below 1e-7 (Abramowitz and Stegun, Handbook of Mathematical Functions, 1964, formula 7.1.26). The
    exponential is shared, and CUDA's erf has twice as many instructions, which take longer than reading the memory.
    """
    bell = tl.exp(-0.5 * value * value)
    step = 1.0 / (1.0 + 0.3275911 * 0.7071067811865476 * tl.abs(value))
    terms = ((1.061405429 * step - 1.453152027) * step + 1.421413741) * step - 0.284496736
    tail = 0.5 * (terms * step + 0.254829592) * step * bell
    return tl.where(value < 0, tail, 1.0 - tail), 0.3989422804014327 * bell


@triton.jit(do_not_specialize=["rows"])
def gate(mapped, target, rows, width: tl.constexpr, block: tl.constexpr):
    """GELU of the first half of `mapped`, [rows, 2 · width], times the second half; `block` elements per program."""
    inner, outer, inside = _gate_places(rows, width, block)
    value = tl.load(mapped + outer, inside).to(tl.float32)
    factor = tl.load(mapped + outer + width, inside).to(tl.float32)
    share, _ = _normal(value)
    tl.store(target + inner, value * share * factor, inside)


@triton.jit(do_not_specialize=["rows"])
def gate_backward(gradient, mapped, target, rows, width: tl.constexpr, block: tl.constexpr):
    """The gradient of `mapped`, from that of the result of `gate`."""
    inner, outer, inside = _gate_places(rows, width, block)
    given = tl.load(gradient + inner, inside).to(tl.float32)
    value = tl.load(mapped + outer, inside).to(tl.float32)
    factor = tl.load(mapped + outer + width, inside).to(tl.float32)
    share, density = _normal(value)
    tl.store(target + outer, given * factor * (share + value * density), inside)
    tl.store(target + outer + width, given * value * share, inside)


# --- addition and norm ------------------------------------------------------------------------------------------------


@triton.jit
def norm(
    states,
    mapped,
    total,
    normed,
    weight,
    bias,
    statistics,
    epsilon,
    hidden: tl.constexpr,
    block: tl.constexpr,
    added: tl.constexpr,
    biased: tl.constexpr,
):
    """LayerNorm of rows of `states` [T, hidden] into `normed`.

    If `added`, it is that of `states` + `mapped`, which goes into `total`. The mean and the inverse standard deviation
    of each row then go into `statistics` [T, 2].
    """
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, block)
    inside = columns < hidden
    places = row * hidden + columns
    found = tl.load(states + places, inside, other=0).to(tl.float32)
    if added:
        found += tl.load(mapped + places, inside, other=0).to(tl.float32)
        rounded = found.to(total.dtype.element_ty)
        tl.store(total + places, rounded, inside)
        found = rounded.to(tl.float32)
    scale = tl.load(weight + columns, inside, other=0).to(tl.float32)
    mean = tl.sum(found, axis=0) / hidden
    found = tl.where(inside, found - mean, 0.0)
    inverse = tl.rsqrt(tl.sum(found * found, axis=0) / hidden + epsilon)
    if added:
        tl.store(statistics + 2 * row, mean)
        tl.store(statistics + 2 * row + 1, inverse)
    found = found * inverse * scale
    if biased:
        found += tl.load(bias + columns, inside, other=0).to(tl.float32)
    tl.store(normed + places, found, inside)


@triton.jit(do_not_specialize=["rows"])
def norm_backward(
    to_total,
    to_normed,
    total,
    statistics,
    weight,
    to_states,
    to_mapped,
    partial,
    rows,
    hidden: tl.constexpr,
    block: tl.constexpr,
    biased: tl.constexpr,
):
    """The gradients of `norm` with addition, from those of its results.

    Each program sums the gradients of the weight and the bias over its rows, into `partial` [1 or 2, programs, hidden].
    """
    part, parts = tl.program_id(0), tl.num_programs(0)
    columns = tl.arange(0, block)
    inside = columns < hidden
    scale = tl.load(weight + columns, inside, other=0).to(tl.float32)
    of_weight, of_bias = tl.zeros([block], tl.float32), tl.zeros([block], tl.float32)
    row = part
    while row < rows:  # Triton's interpreter cannot run `range` with numpy 2
        places = row.to(tl.int64) * hidden + columns
        gradient = tl.load(to_normed + places, inside, other=0).to(tl.float32)
        value = tl.load(total + places, inside, other=0).to(tl.float32)
        residual = tl.load(to_total + places, inside, other=0).to(tl.float32)
        mean, inverse = tl.load(statistics + 2 * row), tl.load(statistics + 2 * row + 1)
        value = tl.where(inside, (value - mean) * inverse, 0.0)
        of_weight += gradient * value
        if biased:
            of_bias += gradient
        gradient *= scale
        shift, slope = tl.sum(gradient, axis=0) / hidden, tl.sum(gradient * value, axis=0) / hidden
        found = (gradient - shift - value * slope) * inverse + residual
        tl.store(to_states + places, found, inside)
        tl.store(to_mapped + places, found, inside)
        row += parts
    tl.store(partial + part * hidden + columns, of_weight, inside)
    if biased:
        tl.store(partial + (parts + part) * hidden + columns, of_bias, inside)


@triton.jit(do_not_specialize=["parts"])
def sum_parts(partial, target, parts, hidden: tl.constexpr, most_parts: tl.constexpr, block: tl.constexpr):
    """Sums [kinds, hidden] of `partial`, [kinds, parts, hidden], always in the same order."""
    kind, part = tl.program_id(1), tl.arange(0, most_parts)[:, None]
    column = tl.program_id(0) * block + tl.arange(0, block)
    inside = (part < parts) & (column < hidden)[None, :]
    found = tl.load(partial + (kind * parts + part) * hidden + column[None, :], inside, other=0)
    tl.store(target + kind * hidden + column, tl.sum(found, axis=0), column < hidden)
