r"""Logic over class probabilities: relations between the classes of objects, and, or, not.

A *variable* is the class that a network gives to an object. Given x, variables are independent with probabilities
p_v(class), so a statement about them, a truth table T over their joint classes, holds with probability

    P = sum_{i,j,..} T[i, j, ..] p_1(i) p_2(j) ..,   log P = logsumexp over the true cells of sum_v log p_v(class)

which is exact even if a variable appears twice: And, Or and Not of statements combine their *tables*, not their
probabilities, so Or(digit is 3, digit is 4) is p_3 + p_4 and And(A, Not(A)) is impossible. All 2^(2^n) questions about
n binary features have this form. Cells of T may be shares in [0, 1] (a statement that holds sometimes).

Fisher coordinate of the outcome "holds": theta = 2 arctan sqrt(P / (1 - P)), from the log odds.

Evidence that is not a statement (a measurement, a criterion) can be joined too: And is the product of the likelihoods,
Or their sum ("one of the two holds"); Not of a density does not exist and is refused. Parts with a power are joined as
likelihoods too; statements with a power inside Not are refused.
References: Bayesian Reasoning with Trained Neural Networks (Knollmueller, Ensslin, 2021), section 5.2; Probability
Theory: The Logic of Science (Jaynes, 2003), chapter 1.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from autovae.reasoning.constraints import Categorical, Constraint, Feature, Scene, refuse_probabilities

__all__ = ["And", "Not", "Or", "Relation", "Statement", "truth_table"]

Variable = tuple[Feature, int | None]
MAX_CELLS = 10**7


def truth_table(holds: Callable[..., bool], sizes: Sequence[int]) -> Tensor:
    """The table of a rule such as `lambda i, j, k: i + j == k` over classes 0..size-1."""
    cells = torch.cartesian_prod(*(torch.arange(size) for size in sizes)).reshape(-1, len(sizes))
    return torch.tensor([float(holds(*cell)) for cell in cells.tolist()]).reshape(*sizes)


class Statement(Constraint):
    """A statement about the classes of objects: a truth table over the joint outcomes of its variables."""

    variables: tuple[Variable, ...]
    _cells: tuple[tuple[Any, ...], list[Tensor], Tensor] | None = None

    @abstractmethod
    def table(self, sizes: dict[Variable, int]) -> Tensor:
        """Truth in [0, 1] of every joint class, one axis per variable."""

    def log_likelihood(self, scene: Scene) -> Tensor:
        return self._log_sum(scene, *self._true_cells(scene))

    def coordinates(self, scene: Scene) -> Tensor | None:
        truth = self.table(self._sizes(scene))
        like = scene.log_probs(*self.variables[0])
        log_odds = self._log_sum(scene, *_cells_of(truth, like)) - self._log_sum(scene, *_cells_of(1 - truth, like))
        # Past 60 the slope of the coordinate is below 1e-13; further out exp would overflow.
        return 2 * torch.atan(torch.exp(0.5 * log_odds.clamp(-60, 60)))[:, None]

    @property
    def log_bound(self) -> float:
        return 0.0

    def check(self, scene: Scene) -> None:
        sizes = self._sizes(scene)
        for net, index in self.variables:
            refuse_probabilities(scene.feature(net, index))
        if math.prod(sizes.values()) > MAX_CELLS:
            raise ValueError(
                f"the truth table over {list(sizes.values())} classes has more than {MAX_CELLS} cells; "
                "split the statement into several constraints"
            )
        if not bool((self.table(sizes) > 0).any()):
            raise ValueError("the statement can never hold: its truth table is 0 everywhere")

    def _sizes(self, scene: Scene) -> dict[Variable, int]:
        return {variable: scene.log_probs(*variable).shape[1] for variable in self.variables}

    def _true_cells(self, scene: Scene) -> tuple[list[Tensor], Tensor]:
        sizes, like = self._sizes(scene), scene.log_probs(*self.variables[0])
        key = (*sizes.values(), like.device, like.dtype)
        if self._cells is None or self._cells[0] != key:
            self._cells = (key, *_cells_of(self.table(sizes), like))
        return self._cells[1:]

    def _log_sum(self, scene: Scene, cells: list[Tensor], log_share: Tensor) -> Tensor:
        """log of sum over cells of share * product of class probabilities, (batch,)."""
        first = scene.log_probs(*self.variables[0])
        if len(log_share) == 0:
            return first.new_full(first.shape[:1], -math.inf)
        total = log_share
        for variable, classes in zip(self.variables, cells, strict=True):
            total = total + scene.log_probs(*variable).index_select(1, classes)
        return total.logsumexp(-1)


def _cells_of(table: Tensor, like: Tensor) -> tuple[list[Tensor], Tensor]:
    """The classes of each variable in the cells that are not false, and the log of their share."""
    cells = (table > 0).nonzero()
    log_share = table[tuple(cells.T)].double().log()
    return [classes.contiguous().to(like.device) for classes in cells.T], log_share.to(like)


def _statement(part: Constraint) -> Statement | None:
    """The constraint as a statement, or None if it is a density."""
    if isinstance(part, Statement):
        return None if isinstance(part, _Join) and not part.statements else part
    return _IsClass(part) if isinstance(part, Categorical) else None


def _statements(parts: Sequence[Constraint]) -> list[Statement] | None:
    """All parts as statements of power 1, or None if one is not."""
    known = [_statement(part) for part in parts if part.power == 1.0]
    return [part for part in known if part is not None] if len(known) == len(parts) and None not in known else None


class _IsClass(Statement):
    """A class label as a statement."""

    def __init__(self, label: Categorical) -> None:
        self.label, self.power = label, label.power
        self.variables = ((label.net, label.object),)

    def table(self, sizes: dict[Variable, int]) -> Tensor:
        table = torch.zeros(sizes[self.variables[0]])
        table[self.label.y] = 1.0
        return table


class Relation(Statement):
    """A relation between the classes of objects, `Relation("i,j,k->", tensor, nets)`.

    One index per network, in the order of the networks; `tensor` has one axis per different letter, in order of first
    appearance, with entries in [0, 1]. A repeated letter requires equal classes. The v-th network sees object `objects[v]`;
    without `objects`, object v if there are several networks and the prior is replicated.
    """

    def __init__(
        self,
        equation: str,
        tensor: Tensor,
        nets: Feature | Sequence[Feature],
        objects: Sequence[int | None] | None = None,
        power: float = 1.0,
    ) -> None:
        networks: list[Feature] = [nets] if callable(nets) else list(nets)
        self._settle(power, None, *networks)
        left, arrow, right = equation.replace(" ", "").partition("->")
        letters = left.split(",")
        if arrow != "->" or right or any(len(letter) != 1 or not letter.isalpha() for letter in letters):
            raise ValueError(f"got {equation!r}; expected one letter per network and nothing on the right, 'i,j,k->'")
        if len(networks) == 1 and len(letters) > 1:
            networks = networks * len(letters)
        if objects is None:
            objects = range(len(letters)) if len(letters) > 1 else [None]
        if len(networks) != len(letters) or len(objects) != len(letters):
            raise ValueError(
                f"got {len(networks)} networks and {len(objects)} objects for {equation!r}; "
                f"expected {len(letters)} each"
            )
        self.equation, self.letters = equation, letters
        self.tensor = torch.as_tensor(tensor).detach().double()
        axes = list(dict.fromkeys(letters))
        if self.tensor.ndim != len(axes):
            raise ValueError(f"got a tensor of {self.tensor.ndim} axes for {equation!r}; expected {len(axes)}")
        if not bool(((self.tensor >= 0) & (self.tensor <= 1)).all()):
            raise ValueError("the tensor has entries outside [0, 1]; expected shares of truth")
        pairs = list(zip(networks, objects, strict=True))
        # One network on one object is one variable, however often it occurs.
        self.variables = tuple(dict.fromkeys(pairs))
        self._axis = [self.variables.index(pair) for pair in pairs]

    @property
    def name(self) -> str:
        return f"Relation({self.equation!r})"

    def table(self, sizes: dict[Variable, int]) -> Tensor:
        axes = {letter: axis for axis, letter in enumerate(dict.fromkeys(self.letters))}
        for letter, variable in zip(self.letters, self._axis, strict=True):
            got, expected = self.tensor.shape[axes[letter]], sizes[self.variables[variable]]
            if got != expected:
                raise ValueError(
                    f"axis {letter!r} of {self.equation!r} has {got} entries and its network has {expected} classes; "
                    "expected one entry per class"
                )
        grids = torch.meshgrid(*(torch.arange(sizes[v]) for v in self.variables), indexing="ij")
        values = {letter: grids[self._axis[self.letters.index(letter)]] for letter in axes}
        table = self.tensor[tuple(values[letter] for letter in axes)]
        for letter, variable in zip(self.letters, self._axis, strict=True):
            table = table * (grids[variable] == values[letter])
        return table


class Not(Statement):
    """The statement does not hold. Sums the false cells, so the logarithm of a small 1 - P is exact."""

    def __init__(self, part: Constraint, power: float = 1.0) -> None:
        statement = _statement(part)
        if statement is None:
            raise ValueError(
                f"Not({part.name}) is not a density; expected a statement about classes: Categorical, Relation, And, Or"
            )
        _refuse_power(part, "Not")
        self._settle(power, None)
        self.part, self.variables = statement, statement.variables

    @property
    def name(self) -> str:
        return f"Not({self.part.name})"

    def table(self, sizes: dict[Variable, int]) -> Tensor:
        return 1 - self.part.table(sizes).double()


class _Join(Statement):
    """Two or more parts joined: by their tables if all are statements, else by their likelihoods."""

    def __init__(self, *parts: Constraint, power: float = 1.0) -> None:
        if not parts:
            raise ValueError(f"got no parts; expected {type(self).__name__}(constraint, ...)")
        self._settle(power, None)
        self.parts, self.statements = parts, _statements(parts)
        self.variables = tuple(dict.fromkeys(v for s in self.statements or [] for v in s.variables))

    @property
    def name(self) -> str:
        return f"{type(self).__name__}({', '.join(part.name for part in self.parts)})"

    @property
    def log_bound(self) -> float:
        return 0.0 if self.statements else self.join_bounds([part.power * part.log_bound for part in self.parts])

    def check(self, scene: Scene) -> None:
        if self.statements:
            return super().check(scene)
        for part in self.parts:
            part.check(scene)

    def log_likelihood(self, scene: Scene) -> Tensor:
        if self.statements:
            return super().log_likelihood(scene)
        return self.join_likelihoods([part.power * part.log_likelihood(scene) for part in self.parts])

    def table(self, sizes: dict[Variable, int]) -> Tensor:
        tables = []
        for statement in self.statements or []:
            table = statement.table(sizes).double()
            place = [self.variables.index(variable) for variable in statement.variables]
            order = sorted(range(table.ndim), key=place.__getitem__)
            shape = [sizes[v] if v in statement.variables else 1 for v in self.variables]
            tables.append(table.permute(order).reshape(shape))
        return self.join_tables(tables).expand(*(sizes[v] for v in self.variables))

    @abstractmethod
    def join_tables(self, tables: list[Tensor]) -> Tensor: ...

    @abstractmethod
    def join_likelihoods(self, log_likelihoods: list[Tensor]) -> Tensor: ...

    @abstractmethod
    def join_bounds(self, bounds: list[float]) -> float: ...


class And(_Join):
    """All parts hold."""

    def coordinates(self, scene: Scene) -> Tensor | None:
        if self.statements:
            return super().coordinates(scene)
        known = [(part.power, part.coordinates(scene)) for part in self.parts]
        factors = [math.sqrt(power) * theta for power, theta in known if theta is not None]
        return torch.cat(factors, 1) if factors else None

    def join_tables(self, tables: list[Tensor]) -> Tensor:
        joined = tables[0]
        for table in tables[1:]:
            joined = joined * table
        return joined

    def join_likelihoods(self, log_likelihoods: list[Tensor]) -> Tensor:
        return torch.stack(log_likelihoods).sum(0)

    def join_bounds(self, bounds: list[float]) -> float:
        return sum(bounds)


class Or(_Join):
    """At least one part holds."""

    def coordinates(self, scene: Scene) -> Tensor | None:
        return super().coordinates(scene) if self.statements else None

    def join_tables(self, tables: list[Tensor]) -> Tensor:
        neither = 1 - tables[0]
        for table in tables[1:]:
            neither = neither * (1 - table)
        return 1 - neither

    def join_likelihoods(self, log_likelihoods: list[Tensor]) -> Tensor:
        return torch.stack(log_likelihoods).logsumexp(0)

    def join_bounds(self, bounds: list[float]) -> float:
        return max(bounds) + math.log(len(bounds))


def _refuse_power(part: Constraint, where: str) -> None:
    if part.power != 1.0:
        raise ValueError(
            f"got a part of power {part.power} in {where}; expected the power outside, {where}(..., power)"
        )
