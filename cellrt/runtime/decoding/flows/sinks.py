"""Which sinks belong to the same cell.

A field that a network predicts is smooth and imperfect: a cell's centre is a shallow, noisy bowl
with several sinks, and on the ridges between cells lie voxels that hardly move. The published rule
joins sinks by a morphological closing of fixed radius, which merges small neighbours and splits
large or noisy cells. Here the evidence is the border between two sinks' basins: between two cells
the flow points away on both sides of it, inside one cell it does not. Contacts are therefore
scored by the flow's divergence over their faces, and basins are joined, lowest score first,
while the score stays below a limit; after each round the contacts of the joined basins are pooled,
so that the decision between two large regions rests on their whole common border.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled, inlined
from cellrt.runtime.decoding.flows.packed_field import PackedField
from cellrt.runtime.decoding.flows.trace import Pointers
from cellrt.runtime.decoding.labels.pair_table import claimed, slot_of
from cellrt.threads import in_threads

JOIN_LIMIT = 0.2
"""Highest score at which two basins are one cell. Borders between touching cells score about 1.9
in a perfect tanh field and 0.6 to 1.2 in one blurred with a Gaussian of 1 voxel."""

ABSORB_LIMIT = 1.0
"""Highest score at which a basin smaller than the smallest cell joins its best neighbour."""

_LEVELS = (-0.2, -0.13, -0.07, 0.0, 0.07, 0.13, JOIN_LIMIT)
# A contact of few faces is weak evidence: each score is drawn towards PRIOR with the weight of
# PRIOR_SHARE * volume^(2/3) faces, volume being the smaller basin's.
_PRIOR = 0.5
_PRIOR_SHARE = 0.5
# A few voxels that strayed into the wrong basin sit beside voxels that point at them (-2 per
# face); without a floor they would outweigh a real border.
_LOWEST = int(-0.3 * 127)


class Contacts(NamedTuple):
    """Touching pairs of basins, ``first < second``: one entry per pair in each array.

    ``divergence`` is summed over the ``faces`` of the contact, in units of 1/127; ``near`` says
    whether the two sinks lie within the closing radius of each other.
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    faces: npt.NDArray[np.int64]
    divergence: npt.NDArray[np.int64]
    near: npt.NDArray[np.bool_]


def number_sinks(pointers: Pointers) -> npt.NDArray[np.int64]:
    """Turn followed pointers, in place, into basin numbers from 1 (0: background).

    Basins are numbered by their sink's flat index; those indices are returned.
    """
    sinks: npt.NDArray[np.int64] = _mark_sinks(pointers)
    _number(pointers)
    return sinks


@compiled
def _mark_sinks(pointers: Any) -> Any:
    count = 0
    for i in range(pointers.size):
        if pointers[i] == i:
            count += 1
    sinks = np.empty(count, np.int64)
    count = 0
    for i in range(pointers.size):
        if pointers[i] == i:
            sinks[count] = i
            count += 1
            pointers[i] = -1 - count
    return sinks


@compiled
def _number(pointers: Any) -> None:
    # Sinks hold -1 - number, so that both kinds can be told apart while the array changes.
    for i in range(pointers.size):
        if pointers[i] >= 0:
            pointers[i] = pointers[pointers[i]]
    for i in range(pointers.size):
        pointers[i] = -1 - pointers[i]


def basin_contacts(
    basins: npt.NDArray[np.int32],
    packed: PackedField,
    sinks: npt.NDArray[np.int64],
    closing_radius: float,
) -> Contacts:
    """Find all pairs of basins that share a face, with the flow's divergence summed over faces.

    Per face the divergence is the flow's component along the face's normal after it minus before
    it, from -2 (both point into the face) to 2 (both point away from it), read one voxel away from
    the face where that voxel is of the same basin: blur flattens the flow at the border itself.
    """
    parts = in_threads(
        basins.shape[0],
        partial(_contacts, basins.reshape(-1), packed.reshape(-1), basins.shape),
        voxels=basins.size,
    )
    keys, faces, divergence = (
        np.concatenate(columns)
        for columns in zip(*(table[table[:, 0] != 0].T for table in parts), strict=True)
    )
    first, second = keys >> 32, keys & 0xFFFFFFFF
    nobody = np.arange(sinks.size + 1, dtype=np.int32)
    near = np.zeros(first.size, np.bool_)
    used = _pool(first.size, first, second, faces, divergence, near, nobody, _pool_table(first))
    first, second, faces, divergence = (
        column[:used].copy() for column in (first, second, faces, divergence)
    )
    return contacts_of(first, second, faces, divergence, sinks, basins.shape, closing_radius)


def contacts_of(
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    faces: npt.NDArray[np.int64],
    divergence: npt.NDArray[np.int64],
    sinks: npt.NDArray[np.int64],
    shape: tuple[int, ...],
    closing_radius: float,
) -> Contacts:
    """Contacts of distinct pairs, with whether their sinks are near each other."""
    places = np.stack(np.unravel_index(sinks, shape), axis=-1)
    apart = places[first - 1] - places[second - 1]
    near = (apart * apart).sum(axis=-1) <= closing_radius**2
    return Contacts(first, second, faces, divergence, near)


@compiled
def _contacts(basins: Any, packed: Any, shape: Any, lo: int, hi: int) -> Any:
    """Contacts whose face lies behind, below or beside a voxel of the slices lo to hi - 1."""
    nz, ny, nx = shape
    table = np.zeros((1 << 12, 3), np.int64)  # key, faces, divergence
    used = 0
    last = np.int64(0)
    slot = 0
    for z in range(lo, hi):
        for y in range(ny):
            for x in range(nx):
                here = (z * ny + y) * nx + x
                a = basins[here]
                if a == 0:
                    continue
                behind = basins[here + ny * nx] if z + 1 < nz else a
                below = basins[here + nx] if y + 1 < ny else a
                beside = basins[here + 1] if x + 1 < nx else a
                if behind == a and below == a and beside == a:
                    continue
                for axis in range(3):
                    if axis == 0:
                        b, at, length, stride, shift = behind, z, nz, ny * nx, np.uint32(16)
                    elif axis == 1:
                        b, at, length, stride, shift = below, y, ny, nx, np.uint32(8)
                    else:
                        b, at, length, stride, shift = beside, x, nx, 1, np.uint32(0)
                    if b == a or b == 0:
                        continue
                    divergence = face_divergence(
                        basins, packed, here, stride, shift, at > 0, at + 2 < length
                    )
                    key = (np.int64(min(a, b)) << 32) | np.int64(max(a, b))
                    if key != last:
                        last = key
                        table, slot, used = claimed(table, key, used)
                    table[slot, 1] += 1
                    table[slot, 2] += divergence
    return table


@inlined
def face_divergence(
    basins: Any, packed: Any, here: int, stride: int, shift: Any, inner: bool, outer: bool
) -> Any:
    """Divergence over the face between a voxel and the next one along an axis.

    `inner` and `outer` say whether the stack goes on before and after the two.
    """
    before = here
    after = here + stride
    if inner and basins[before - stride] == basins[here]:
        before -= stride
    if outer and basins[after + stride] == basins[after]:
        after += stride
    byte = np.uint32(255)
    divergence = np.int64((packed[after] >> shift) & byte) - np.int64(
        (packed[before] >> shift) & byte
    )
    return max(divergence, _LOWEST)


def join_basins(
    volumes: npt.NDArray[np.int64], contacts: Contacts, smallest_volume: float
) -> npt.NDArray[np.int32]:
    """Group basins that belong to one cell.

    Parameters
    ----------
    volumes : (n + 1,) int64 array
        Voxels of each basin; entry 0 (background) is 0.
    contacts : Contacts
        Their contacts.
    smallest_volume : float
        Basins below this many voxels are fragments, which join their best neighbour.

    Returns
    -------
    (n + 1,) int32 array
        For each basin the number of one basin of its group; entry 0 is 0.
    """
    levels = np.array([*_LEVELS, ABSORB_LIMIT])
    count = volumes.size
    group = np.arange(count, dtype=np.int32)
    _join(
        *(column.copy() for column in contacts),
        volumes.copy(),
        float(smallest_volume),
        levels,
        group,
        np.empty(count),
        np.empty(count, np.int32),
        np.empty(count, np.int64),
        np.empty(count, np.int32),
        _pool_table(contacts.first),
    )
    return group


@compiled
def _join(
    first: Any,
    second: Any,
    faces: Any,
    sums: Any,
    near: Any,
    volumes: Any,
    smallest: float,
    levels: Any,
    group: Any,
    best: Any,
    partner: Any,
    rank: Any,
    parent: Any,
    table: Any,
) -> None:
    """Join, in place; the last five arrays are there to work in."""
    count = volumes.size
    contacts = first.size
    level_of_join = levels.size - 2
    for level in range(levels.size):
        fragments_only = level == levels.size - 1
        joined = True
        while joined:
            for a in range(count):
                best[a] = np.inf
                partner[a] = 0
                rank[a] = 0
                parent[a] = a
            for i in range(contacts):
                a = first[i]
                b = second[i]
                volume = min(volumes[a], volumes[b])
                if fragments_only and volume >= smallest:
                    continue
                weight = _PRIOR_SHARE * volume ** (2.0 / 3.0)
                mean = sums[i] / 127.0 / faces[i]
                score = (mean * faces[i] + _PRIOR * weight) / (faces[i] + weight)
                if near[i]:
                    score = min(score, mean + levels[level_of_join])
                if score > levels[level]:
                    continue
                # Ties go to the larger contact, then to the lower number, so that the result does
                # not depend on the order of the contacts.
                rank_a = faces[i] * count + count - b
                rank_b = faces[i] * count + count - a
                if score < best[a] or (score == best[a] and rank_a > rank[a]):
                    best[a] = score
                    partner[a] = b
                    rank[a] = rank_a
                if score < best[b] or (score == best[b] and rank_b > rank[b]):
                    best[b] = score
                    partner[b] = a
                    rank[b] = rank_b
            # Only the smaller of two joins the larger: links form trees, never cycles.
            joined = False
            for a in range(1, count):
                b = partner[a]
                if b == 0 or (fragments_only and volumes[a] >= smallest):
                    continue
                if volumes[a] < volumes[b] or (volumes[a] == volumes[b] and a > b):
                    parent[a] = b
                    joined = True
            if not joined:
                break
            for a in range(1, count):
                root = np.int64(a)
                while parent[root] != root:
                    root = np.int64(parent[root])
                at = np.int64(a)
                while at != root:
                    after = np.int64(parent[at])
                    parent[at] = root
                    at = after
            for a in range(1, count):
                group[a] = parent[group[a]]
                if parent[a] != a:
                    volumes[parent[a]] += volumes[a]
                    volumes[a] = 0
            contacts = _pool(contacts, first, second, faces, sums, near, parent, table)


def _pool_table(contacts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A free table for `_pool`: the key of a pair, its place, and the row of the n-th pair."""
    return np.zeros((1 << (2 * contacts.size + 15).bit_length(), 3), np.int64)


@compiled
def _pool(
    count: int,
    first: Any,
    second: Any,
    faces: Any,
    sums: Any,
    near: Any,
    parent: Any,
    table: Any,
) -> Any:
    """Move the contacts between the joined basins to the front, in place; return how many."""
    used = 0
    for i in range(count):
        a = np.int64(parent[first[i]])
        b = np.int64(parent[second[i]])
        if a == b:
            continue
        if a > b:
            a, b = b, a
        key = (a << 32) | b
        slot = slot_of(table, key)
        at = table[slot, 1]
        if table[slot, 0] == 0:
            # No place behind i is written, and i itself has been read.
            at = used
            used += 1
            table[slot, 0] = key
            table[slot, 1] = at
            table[at, 2] = slot
            joined_faces = faces[i]
            joined_sums = sums[i]
            joined_near = near[i]
            first[at] = a
            second[at] = b
        else:
            joined_faces = faces[at] + faces[i]
            joined_sums = sums[at] + sums[i]
            joined_near = near[at] | near[i]
        faces[at] = joined_faces
        sums[at] = joined_sums
        near[at] = joined_near
    for at in range(used):
        table[table[at, 2], 0] = 0
    return used
