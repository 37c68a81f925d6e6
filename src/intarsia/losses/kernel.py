"""kernel.c on tensors; without a compiler the losses are plain torch (intarsia/compiled.py)."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from intarsia.classes import IGNORE
from intarsia.compiled import Compiled, Unfit
from intarsia.errors import ConfigError
from intarsia.ops.pieces import address, pieces, share


class Kernel:
    """The functions of kernel.c on tensors: float32 logits (N, K, P), in either order of memory, on the processor."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer = ctypes.c_void_p
        self._forward, self._backward = library.statistics_forward, library.statistics_backward
        self._forward.argtypes, self._forward.restype = [pointer, ctypes.c_int32, pointer], ctypes.c_int32
        self._backward.argtypes, self._backward.restype = [pointer, ctypes.c_float, *[pointer] * 4], None
        self._pixels = library.statistics_pixels
        self._pixels.argtypes, self._pixels.restype = [pointer, pointer], ctypes.c_int32
        self._expect = library.statistics_expect
        self._expect.argtypes, self._expect.restype = [pointer, ctypes.c_int64], None

    def forward(self, logits_NKP: Tensor, mask_NP: Tensor, weights_NP: Tensor | None, *, squares: bool) -> Tensor:
        """(N, 2 + 4 K) float64: nll, sum of w, then I, P, Q and T.

        Args:
            logits_NKP, mask_NP, weights_NP: as `fitting` gives them.

        Raises:
            ConfigError: the mask has a number that is neither a class nor 255.
        """
        num_images, num_classes, num_pixels = logits_NKP.shape
        parts = pieces(num_pixels, logits_NKP.numel())
        sums = torch.zeros(len(parts), num_images, 2 + 4 * num_classes, dtype=torch.float64, device="cpu")
        wrong = [0] * len(parts)

        def work(index: int) -> None:
            for n in range(num_images):
                image = _Image.of(logits_NKP, mask_NP, weights_NP, n, parts[index])
                wrong[index] |= self._forward(ctypes.addressof(image), int(squares), address(sums[index], n, range(0)))

        share(work, len(parts))
        if any(wrong):
            raise wrong_class(mask_NP, num_classes)
        return sums.sum(0)

    def pixels(self, logits_NKP: Tensor, mask_NP: Tensor) -> Tensor:
        """(N, P) -log p of the true class, 0 where ignored.

        Raises:
            ConfigError: the mask has a number that is neither a class nor 255.
        """
        num_images, num_classes, num_pixels = logits_NKP.shape
        parts = pieces(num_pixels, logits_NKP.numel())
        nll_NP = torch.empty(num_images, num_pixels, device="cpu")
        wrong = [0] * len(parts)

        def work(index: int) -> None:
            for n in range(num_images):
                image = _Image.of(logits_NKP, mask_NP, None, n, parts[index])
                wrong[index] |= self._pixels(ctypes.addressof(image), address(nll_NP, n, parts[index]))

        share(work, len(parts))
        if any(wrong):
            raise wrong_class(mask_NP, num_classes)
        return nll_NP

    def backward(
        self,
        logits_NKP: Tensor,
        mask_NP: Tensor,
        weights_NP: Tensor | None,
        d_nll_N: Tensor,
        d_sums_NK: tuple[Tensor, Tensor, Tensor | None],
    ) -> Tensor:
        """The gradient in the logits, in their order of memory, from those in nll and (I, P, Q)."""
        out_NKP = torch.empty_like(logits_NKP)
        self._expect(out_NKP.data_ptr(), out_NKP.nbytes)
        parts = pieces(logits_NKP.shape[2], logits_NKP.numel())
        d_nll = [float(each) for each in d_nll_N.tolist()]
        rows = [None if part is None else part.to(torch.float32).contiguous() for part in d_sums_NK]

        def work(index: int) -> None:
            for n, d in enumerate(d_nll):
                image = _Image.of(logits_NKP, mask_NP, weights_NP, n, parts[index])
                starts = [None if part is None else address(part, n, range(0)) for part in rows]
                self._backward(ctypes.addressof(image), d, *starts, address(out_NKP, n, parts[index]))

        share(work, len(parts))
        return out_NKP


class _Image(ctypes.Structure):
    """`Image` of kernel.c."""

    _fields_ = (
        ("z", ctypes.c_void_p),
        ("class_step", ctypes.c_int64),
        ("pixel_step", ctypes.c_int64),
        ("mask", ctypes.c_void_p),
        ("wide", ctypes.c_int32),
        ("weights", ctypes.c_void_p),
        ("classes", ctypes.c_int64),
        ("pixels", ctypes.c_int64),
    )

    @staticmethod
    def of(logits_NKP: Tensor, mask_NP: Tensor, weights_NP: Tensor | None, n: int, pixels: range) -> _Image:
        _, class_step, pixel_step = logits_NKP.stride()
        return _Image(
            address(logits_NKP, n, pixels),
            class_step,
            pixel_step,
            address(mask_NP, n, pixels),
            int(mask_NP.dtype == torch.int64),
            None if weights_NP is None else address(weights_NP, n, pixels),
            logits_NKP.shape[1],
            len(pixels),
        )


def fitting(logits_NKP: Tensor, mask_NP: Tensor, weights_NP: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The three as the kernel reads them; copied only where they are of another type or order of memory."""
    if not logits_NKP.transpose(1, 2).is_contiguous():
        logits_NKP = logits_NKP.contiguous()
    if mask_NP.dtype not in (torch.uint8, torch.int64):
        mask_NP = mask_NP.long()
    return logits_NKP, mask_NP.contiguous(), None if weights_NP is None else weights_NP.float().contiguous()


def wrong_class(mask_NP: Tensor, num_classes: int) -> ConfigError:
    """The error for a mask with a number that is no class."""
    found = mask_NP[(mask_NP != IGNORE) & ((mask_NP < 0) | (mask_NP >= num_classes))]
    return ConfigError(
        f"mask: holds class {int(found.max())}, but the logits have {num_classes} classes, counted from 0; "
        f"{IGNORE} is ignored."
    )


def _checked(library: ctypes.CDLL) -> Kernel:
    """The kernel, held against the formulas of statistics.py in float64, in both orders of memory."""
    kernel, generator = Kernel(library), torch.Generator("cpu").manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64, device="cpu")

    k, pixels = 5, 1203
    z_KP, w_P, d_sums = 20 * drawn(k, pixels).float() - 10, drawn(pixels).float(), drawn(3, k)
    mask_P = (drawn(pixels) * (k + 1)).to(torch.uint8)
    t_KP = (mask_P == torch.arange(k, device="cpu").unsqueeze(1)).double()
    mask_P[mask_P == k] = IGNORE
    counted_P, log_p_KP = t_KP.sum(0), z_KP.double().log_softmax(0)
    p_KP = log_p_KP.exp() * counted_P
    w_KP = w_P * t_KP
    parts = (-(w_KP * log_p_KP).sum(), w_KP.sum(), (p_KP * t_KP).sum(1), p_KP.sum(1), p_KP.square().sum(1), t_KP.sum(1))
    sums = torch.cat([part.reshape(-1) for part in parts])
    a_KP = d_sums[0, :, None] * t_KP + d_sums[1, :, None] + 2 * p_KP * d_sums[2, :, None]
    gradient_KP = p_KP * (a_KP - (p_KP * a_KP).sum(0)) + w_P * (p_KP - t_KP) * counted_P
    for logits_KP in (z_KP, z_KP.T.contiguous().T):
        for mask in (mask_P, mask_P.long()):
            given = logits_KP.unsqueeze(0), mask.unsqueeze(0), w_P.unsqueeze(0)
            found = kernel.forward(*given, squares=True)[0]
            rows, nll_P = d_sums.unsqueeze(1), -(t_KP * log_p_KP).sum(0)
            gradient = kernel.backward(*given, torch.ones(1, device="cpu"), (rows[0], rows[1], rows[2]))[0]
            if not torch.allclose(found, sums, rtol=1e-5) or not torch.allclose(
                gradient.double(), gradient_KP, rtol=1e-5, atol=1e-6
            ):
                raise Unfit("kernel.c, compiled, gives other numbers than plain torch")
            if not torch.allclose(kernel.pixels(*given[:2])[0].double(), nll_P * counted_P, rtol=1e-5, atol=1e-6):
                raise Unfit("kernel.c, compiled, gives other numbers than plain torch")
    return kernel


KERNEL = Compiled(Path(__file__).with_name("kernel.c"), _checked)
