"""Weighted sums of losses, with schedules; the softmax is computed once for all terms."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator
from torch import Tensor

from intarsia.config import Config
from intarsia.losses.base import LOSSES, Border, LossConfig, Occurrence, Pixels
from intarsia.losses.boundary import BoundaryConfig
from intarsia.losses.cross_entropy import CrossEntropyConfig
from intarsia.losses.dice import DiceConfig, GeneralizedDiceConfig


class Term(Config):
    """A loss and its factor."""

    loss: Annotated[SerializeAsAny[LossConfig], BeforeValidator(LOSSES.resolve)]
    """The loss, a name or its settings."""
    weight: float = Field(1.0, ge=0)
    """Factor, at the start of training if `final` is given."""
    final: float | None = Field(None, ge=0)
    """Factor at the end of training, reached linearly; null: it stays."""

    def at(self, share: float) -> Term:
        """The term at a share of the training, its factor fixed."""
        weight = self.weight if self.final is None else self.weight + share * (self.final - self.weight)
        return self.replace(loss=self.loss.at(share), weight=weight, final=None)


class Sum(LossConfig):
    """What sums share: terms, and which of their wishes reach the pixels."""

    @property
    def parts(self) -> tuple[tuple[LossConfig, float], ...]:
        """The losses and their factors."""
        raise NotImplementedError

    @property
    def squares(self) -> bool:
        return any(loss.squares for loss, _ in self.parts)

    @property
    def regional(self) -> bool:
        return any(loss.regional for loss, _ in self.parts)

    @property
    def border(self) -> Border | None:
        return next((loss.border for loss, _ in self.parts if loss.border), None)

    def of(self, pixels: Pixels) -> Tensor:
        pixels.wants_sums = self.regional
        total = pixels.logits_NKP.new_zeros(())
        for loss, weight in self.parts:
            if weight:
                total = total + weight * loss.of(pixels)
        return total


@LOSSES.family("ce_dice")
class CrossEntropyDiceConfig(Sum):
    """ce_weight * cross-entropy + dice_weight * soft Dice."""

    ce_weight: float = Field(1.0, ge=0)
    """Factor of the cross-entropy."""
    dice_weight: float = Field(1.0, ge=0)
    """Factor of soft Dice."""
    ce: CrossEntropyConfig = CrossEntropyConfig()
    """Settings of the cross-entropy."""
    dice: DiceConfig = DiceConfig()
    """Settings of soft Dice."""

    @property
    def parts(self) -> tuple[tuple[LossConfig, float], ...]:
        return (self.ce, self.ce_weight), (self.dice, self.dice_weight)

    def resolved(self, occurrence: Occurrence) -> CrossEntropyDiceConfig:
        return self.replace(ce=self.ce.resolved(occurrence))


@LOSSES.family("sum")
class SumConfig(Sum):
    """sum_j weight_j loss_j; a factor can move from `weight` to `final` over the training."""

    terms: tuple[Term, ...] = (Term(loss=CrossEntropyConfig(name="ce")), Term(loss=DiceConfig(name="dice")))
    """The terms: [{loss: ce, weight: 1}, {loss: {name: dice, squared: true}, weight: 1, final: 0.5}]."""

    @field_validator("terms", mode="before")
    @classmethod
    def _some(cls, terms: Any) -> Any:
        if not terms:
            raise ValueError("terms must hold one or more losses")
        return terms

    @field_validator("terms")
    @classmethod
    def _one_border(cls, terms: tuple[Term, ...]) -> tuple[Term, ...]:
        if len({term.loss.border for term in terms if term.loss.border}) > 1:
            raise ValueError("only one border map can be used: give all terms the same border_w0 and border_sigma")
        return terms

    @property
    def parts(self) -> tuple[tuple[LossConfig, float], ...]:
        return tuple((term.loss, term.weight) for term in self.terms)

    def at(self, share: float) -> SumConfig:
        return self.replace(terms=tuple(term.at(share) for term in self.terms))

    def resolved(self, occurrence: Occurrence) -> SumConfig:
        return self.replace(terms=tuple(term.replace(loss=term.loss.resolved(occurrence)) for term in self.terms))


# Kervadec et al., arXiv:1812.07032, section 3: generalised Dice first, the boundary more and more.
LOSSES.preset(
    "gdl_boundary",
    SumConfig(
        terms=(
            Term(loss=GeneralizedDiceConfig(name="generalized_dice"), weight=1.0, final=0.01),
            Term(loss=BoundaryConfig(name="boundary"), weight=0.01, final=1.0),
        )
    ),
)
