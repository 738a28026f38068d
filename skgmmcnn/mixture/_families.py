"""The families of densities by name."""

from __future__ import annotations

from ._emissions import DiagonalGaussian, Emission, SphericalGaussian, TiedDiagonalGaussian
from ._rectified import RectifiedGaussian

EMISSIONS: dict[tuple[str, str], type[Emission]] = {
    ("gaussian", "diag"): DiagonalGaussian,
    ("gaussian", "spherical"): SphericalGaussian,
    ("gaussian", "tied_diag"): TiedDiagonalGaussian,
    ("rectified", "diag"): RectifiedGaussian,
}
