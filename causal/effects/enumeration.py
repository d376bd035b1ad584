"""Exact laws and means in two worlds of an SCM of tables and linear mechanisms.

The joint law of some copies is a sum over all that they hear of a product of tables, contracted by
`torch.einsum` (the truncated factorisation; Pearl 2009, Causality, eq. 3.10). A node with a copy in
either world enters with the joint law of both under its coupling. The extremes over all couplings
follow by backward induction, the last node first; they are outer bounds where one node's coupling
would have to serve several configurations at once, else sharp.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from pyro.distributions import Categorical, Normal
from torch import Tensor

from causal.counterfactuals.worlds import Coupling, coupling_of
from causal.effects.transport import joint_law, least
from causal.effects.twins import Copy, Twins
from causal.mechanisms import CategoricalTable, Kind, LinearGaussian, LinearVector, Mechanism
from causal.outcomes import unwrapped
from causal.scm import SCM

_NODES = 25
"""Nodes upstream, above which the sum might not fit memory; torch.einsum has 52 letters."""

_MOST = 2**20
"""Entries of a table above which nothing is enumerated."""

_BLOCKS = 4000
"""Configurations for whose bounds a linear programme is set up."""

Operand = tuple[Tensor, list[Copy]]
"""A table in float64 and the copies that are its axes."""

Codes = Mapping[Copy, int]
"""Evidence: the level of some copies."""


def law(
    twins: Twins, targets: Sequence[Copy], *, evidence: Codes, coupling: Coupling = None
) -> Tensor | None:
    """The joint probabilities of some copies given evidence, one axis a copy.

    Args:
        twins: the two worlds.
        targets: the copies; one that comes twice stands on a diagonal.
        evidence: levels of copies, in worlds of which no two copies of one node are needed.
        coupling: of nodes that have both copies upstream.

    Returns:
        Shape (levels, ...), or None where something upstream is no table, or too much is.

    Raises:
        ValueError: the evidence has probability zero.
    """
    upstream = twins.upstream([*targets, *evidence])
    operands = _operands(twins, upstream, coupling)
    if operands is None:
        return None
    operands += [(_one_hot(twins, c, code), [c]) for c, code in evidence.items()]
    distinct = list(dict.fromkeys(targets))
    joint = _contract(operands, upstream, distinct)
    total = joint.sum()
    if float(total) <= 0:
        raise ValueError("The evidence has probability zero under the model.")
    return _spread(joint / total, distinct, targets)


def extremes(
    twins: Twins, targets: Sequence[Copy], weight: Tensor, *, evidence: Codes
) -> tuple[float, float] | None:
    """The least and largest mean of weight[targets] given evidence, over all couplings.

    Args:
        twins: the two worlds.
        targets: the copies, one an axis of `weight`.
        weight: what is averaged.
        evidence: levels of copies of which no other copy is open, of the first world.

    Returns:
        None where the mean cannot be enumerated, or there is too much to do it.
    """
    upstream = twins.upstream([*targets, *evidence])
    if _operands(twins, upstream, None) is None:
        return None
    shape = [1 if _is_set(twins, c) else _levels(twins, c) for c in upstream]
    if torch.Size(shape).numel() > _MOST:
        return None
    goal = _aligned(*_pinned(twins, weight.double(), list(targets)), upstream).expand(shape)
    for copy, code in evidence.items():
        seen = _pinned(twins, _one_hot(twins, copy, code), [copy])
        goal = goal * _aligned(*seen, upstream)
    ends = [_induct(twins, upstream, sign * goal) for sign in (1.0, -1.0)]
    if ends[0] is None or ends[1] is None:
        return None
    mass = 1.0
    if evidence:
        mass = _mass(twins, evidence)
    return ends[0] / mass, -ends[1] / mass


def mean(
    twins: Twins, copy: Copy, *, evidence: Codes | None = None, coupling: Coupling = None
) -> Float[Tensor, " k"] | None:
    """The mean of a copy, shape (1,), or the probabilities of its levels, in float64.

    The mean of a linear mechanism is linear in those of its parents, a level counting as its
    one-hot code. Its noise is independent of evidence that has tables alone upstream.
    """
    if evidence and _operands(twins, twins.upstream(evidence), coupling) is None:
        return None
    return _mean(twins, copy, evidence or {}, coupling)


def _mean(twins: Twins, copy: Copy, evidence: Codes, coupling: Coupling) -> Tensor | None:
    target, world = copy
    action = twins.action(copy)
    node = target[0] if isinstance(target, tuple) else target
    mechanism = twins.scm.mechanism(node)
    if action is not None:
        return _mean_of(action, mechanism.kind)
    if mechanism.kind.levels > 1:
        return law(twins, [copy], evidence=evidence, coupling=coupling)
    if not isinstance(mechanism, LinearGaussian | LinearVector):
        return None
    total = mechanism.intercept.detach().double().reshape(-1)
    sizes = [kind.width for kind in mechanism.inputs.values()]
    weights = mechanism.weight.detach().double().split(sizes) if sizes else ()
    for w, parent in zip(weights, twins.heard(node, world).values(), strict=True):
        part = _mean(twins, parent, evidence, coupling)
        if part is None:
            return None
        total = total + part @ w.reshape(len(part), -1)
    return total


def open_nodes(twins: Twins, targets: Sequence[Copy]) -> list[str]:
    """The nodes of which both copies count, and that a table does not decide without noise."""
    names = twins.doubled(twins.upstream(targets))
    return [name for name in names if not _is_decided(twins, name)]


def _is_decided(twins: Twins, node: str) -> bool:
    probs = _probs(twins.scm.mechanism(node)) if isinstance(twins.scm, SCM) else None
    return probs is not None and bool((probs.amax(-1) > 1 - 1e-12).all())


def _mass(twins: Twins, evidence: Codes) -> float:
    """The probability of evidence."""
    upstream = twins.upstream(evidence)
    operands = _operands(twins, upstream, None)
    assert operands is not None
    operands += [(_one_hot(twins, c, code), [c]) for c, code in evidence.items()]
    return float(_contract(operands, upstream, []))


def _operands(twins: Twins, upstream: Sequence[Copy], coupling: Coupling) -> list[Operand] | None:
    """The factors of the joint law of some copies; None if one is no table of a fitting size."""
    if not twins.plain or len({target for target, _ in upstream}) > _NODES:
        return None
    operands, doubled = list[Operand](), set(twins.doubled(upstream))
    for copy in upstream:
        if copy[0] in doubled and copy[1] == 1:
            continue
        operand = _table(twins, copy)
        if operand is None:
            return None
        if copy[0] in doubled:
            p, q, axes = _aligned_pair(twins, copy[0])
            if p.numel() * p.shape[-1] > _MOST:
                return None
            joint = joint_law(p, q, _named(twins, copy[0], coupling))
            operand = joint, [*axes, copy, (copy[0], 1)]
        operands.append(operand)
    return operands


def _table(twins: Twins, copy: Copy) -> Operand | None:
    """The law of a copy given what it hears."""
    target, world = copy
    node = target[0] if isinstance(target, tuple) else target
    mechanism, action = twins.scm.mechanism(node), twins.action(copy)
    if action is not None:
        fixed = _mean_of(action, mechanism.kind) if mechanism.kind.levels > 1 else None
        return None if fixed is None else (fixed, [copy])
    p = _probs(mechanism)
    return None if p is None else _merged(p, [*twins.heard(node, world).values(), copy])


def _probs(mechanism: Mechanism) -> Float[Tensor, "*k levels"] | None:
    """The table of a mechanism, one axis a parent; None where one of them is no level."""
    if isinstance(mechanism, CategoricalTable):
        return mechanism.logits.detach().double().softmax(-1)
    shape = [kind.levels for kind in mechanism.inputs.values()]
    total = math.prod(shape) * mechanism.kind.levels
    if mechanism.kind.levels == 1 or 1 in shape or total > _MOST:
        return None
    with torch.no_grad():
        grid = torch.cartesian_prod(*map(torch.arange, shape)).reshape(-1, len(shape))
        fn = unwrapped(mechanism.dist(dict(zip(mechanism.inputs, grid.T, strict=True))))
    if not isinstance(fn, Categorical):
        return None
    probs: Tensor = fn.probs.double().expand(len(grid), -1).reshape(*shape, -1)
    return probs / probs.sum(-1, keepdim=True)


def _aligned_pair(twins: Twins, node: str) -> tuple[Tensor, Tensor, list[Copy]]:
    """The laws of both copies of a node over all that either hears."""
    tables = [_table(twins, (node, world)) for world in (0, 1)]
    assert tables[0] is not None and tables[1] is not None
    axes = list(dict.fromkeys([*tables[0][1][:-1], *tables[1][1][:-1]]))
    both = [_aligned(t, names, [*axes, (node, w)]) for w, (t, names) in enumerate(tables)]  # type: ignore[misc]
    shape = torch.broadcast_shapes(*[t.shape for t in both])
    return both[0].expand(shape), both[1].expand(shape), axes


def _induct(twins: Twins, upstream: Sequence[Copy], goal: Tensor) -> float | None:
    """The least mean of a function of all copies, over the couplings of those with one noise."""
    doubled, left = set(twins.doubled(upstream)), list(upstream)
    while left:
        copy = left[-1]
        if copy[0] in doubled:
            p, q, axes = _aligned_pair(twins, copy[0])
            rest = left[:-2]
            if p.shape[-1] > 2 and goal.shape[: len(rest)].numel() > _BLOCKS:
                return None
            shape = goal.shape[: len(rest)]
            heard = (_pinned(twins, t, [*axes, copy]) for t in (p, q))
            p, q = (_aligned(*each, [*rest, copy]) for each in heard)
            p, q = (t.expand(*shape, p.shape[-1]) for t in (p, q))
            same = _aligned(*_pinned(twins, *_same(twins, copy[0])), rest).expand(shape)
            goal, left = least(goal, p, q, same), rest
        else:
            operand = _table(twins, copy)
            assert operand is not None
            table = _aligned(*_pinned(twins, *operand), left)
            goal, left = (goal * table).sum(-1), left[:-1]
    return float(goal)


def _is_set(twins: Twins, copy: Copy) -> bool:
    return isinstance(twins.action(copy), Tensor)


def _pinned(twins: Twins, table: Tensor, axes: list[Copy]) -> Operand:
    """A table at the values of what is set, along axes of size one."""
    for dim, copy in enumerate(axes):
        if _is_set(twins, copy):
            table = table.narrow(dim, int(twins.action(copy)), 1) if table.shape[dim] > 1 else table
    return table, axes


def _same(twins: Twins, node: str) -> tuple[Bool[Tensor, "..."], list[Copy]]:
    """Where both copies of a node hear the same values, over all that either hears."""
    pairs = list(zip(*(twins.heard(node, w).values() for w in (0, 1)), strict=True))
    axes = list(dict.fromkeys([c for pair in pairs for c in pair]))
    same = torch.ones([1] * len(axes), dtype=torch.bool)
    for a, b in pairs:
        if a != b:
            eye = torch.eye(_levels(twins, a), dtype=torch.bool)
            same = same & _aligned(eye, [a, b], axes)
    return same, axes


def _contract(operands: Sequence[Operand], order: Sequence[Copy], keep: Sequence[Copy]) -> Tensor:
    """The sum over all copies but some of the product of the operands."""
    place = {copy: i for i, copy in enumerate(order)}
    flat: list[Tensor | list[int]] = []
    for table, axes in operands:
        flat += [table, [place[c] for c in axes]]
    total: Tensor = torch.einsum(*flat, [place[c] for c in keep])
    return total


def _aligned(table: Tensor, axes: Sequence[Copy], onto: Sequence[Copy]) -> Tensor:
    """A table with its axes in the order of others, of size one where it does not have them."""
    table, names = _merged(table, list(axes))
    order = [names.index(c) for c in onto if c in names]
    table = table.permute(order)
    sizes = iter(table.shape)
    return table.reshape([next(sizes) if c in names else 1 for c in onto])


def _merged(table: Tensor, axes: list[Copy]) -> Operand:
    """The diagonal of a table where two of its axes are the same copy."""
    distinct = list(dict.fromkeys(axes))
    if len(distinct) == len(axes):
        return table, axes
    letters = [distinct.index(c) for c in axes]
    return torch.einsum(table, letters, list(range(len(distinct)))), distinct


def _spread(joint: Tensor, distinct: Sequence[Copy], targets: Sequence[Copy]) -> Tensor:
    """A joint law with an axis for every target, also for one that comes twice."""
    for i, copy in enumerate(targets):
        if copy in targets[:i]:
            joint = torch.diag_embed(joint, dim1=distinct.index(copy), dim2=i)
    return joint


def _levels(twins: Twins, copy: Copy) -> int:
    node = copy[0][0] if isinstance(copy[0], tuple) else copy[0]
    return twins.scm.mechanism(node).kind.levels


def _one_hot(twins: Twins, copy: Copy, code: int) -> Tensor:
    return (torch.arange(_levels(twins, copy)) == code).double()


def _mean_of(value: object, kind: Kind) -> Float[Tensor, " k"] | None:
    """The mean of what a node was set to, or of the law that it was given."""
    if kind.size is not None:
        whole = isinstance(value, Tensor) and value.shape == (kind.size,)
        return value.double() if isinstance(value, Tensor) and whole else None
    if isinstance(value, Tensor) and value.numel() == 1:
        x = value.reshape(1).double()
        return (x == torch.arange(kind.levels)).double() if kind.levels > 1 else x
    if isinstance(value, Categorical) and not value.batch_shape:
        return value.probs.double()
    if isinstance(value, Normal) and not value.batch_shape:
        return value.mean.reshape(1).double()
    return None


def _named(twins: Twins, node: str, asked: Coupling) -> str:
    """The coupling of a node: the one asked for, else the first of its distribution."""
    mechanism = twins.scm.mechanism(node)
    fn = mechanism.dist({name: torch.zeros(1).long() for name in mechanism.inputs})
    return coupling_of(node, fn, asked) or "gumbel"
