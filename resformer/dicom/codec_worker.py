"""Run as a program: decode the frame on standard input, samples go to standard output.

Decoders crash on damaged data, a few hundred bytes can keep them busy for minutes, and Pillow's
hold the interpreter's lock. In a process of its own, a crash costs that process, a bomb meets the
limits set here, and other threads of the server go on.

Arguments: transfer syntax UID, width, height, bits of a value, seconds of processor time. A line
says that the decoder is ready, before anything of the frame is read. Then come the samples in the
machine's byte order, in 8 or in 16 bits. JPEG and JPEG 2000 are Pillow's; JPEG lossless and JPEG-LS
are GDCM's, the one permissively licensed decoder of JPEG lossless in a Python package.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

READY = b"ready\n"
NO_MEMORY = 3
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_JPEG2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")

Decoder = Callable[[bytes, int, int, int], bytes]


def main() -> int:
    """Decode by the command line's arguments and return the exit status."""
    syntax = sys.argv[1]
    width, height, bits, seconds = map(int, sys.argv[2:])
    decode = find_decoder(syntax)
    limit_resources(width * height, seconds)
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    try:
        samples = decode(sys.stdin.buffer.read(), width, height, bits)
    except MemoryError:
        return NO_MEMORY
    sys.stdout.buffer.write(samples)
    return 0


def find_decoder(syntax: str) -> Decoder:
    """Import what decodes a transfer syntax.

    Raises:
        ImportError: if it is not installed, or Pillow was built without it.
    """
    if syntax in _JPEG or syntax in _JPEG2000:
        return _pillow_decoder("jpg" if syntax in _JPEG else "jpg_2000")
    return _gdcm_decoder(syntax)


def limit_resources(pixels: int, seconds: int) -> None:
    """Bound memory and processor time where the system can, below the limits that are set."""
    if sys.platform == "win32":
        return
    import resource

    # At the soft limit of time the system sends a signal that tells it from other kills.
    memory = (1 << 30) + 24 * pixels
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_CORE: 0,
    }
    for kind, soft in limits.items():
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            soft = min(soft, hard)
        resource.setrlimit(kind, (soft, hard))


def _pillow_decoder(codec: str) -> Decoder:
    from PIL import Jpeg2KImagePlugin, JpegImagePlugin, features

    if not features.check_codec(codec):
        raise ImportError(f"Pillow was built without the codec {codec}")
    reader = JpegImagePlugin.JpegImageFile if codec == "jpg" else Jpeg2KImagePlugin.Jpeg2KImageFile

    def decode(frame: bytes, width: int, height: int, bits: int) -> bytes:
        with reader(io.BytesIO(frame)) as image:
            image.load()
            return image.tobytes("raw", "L" if bits <= 8 else "I;16N")

    return decode


def _gdcm_decoder(syntax: str) -> Decoder:
    import gdcm

    def decode(frame: bytes, width: int, height: int, bits: int) -> bytes:
        fragment = gdcm.Fragment()
        fragment.SetByteStringValue(frame)
        fragments = gdcm.SequenceOfFragments.New()
        fragments.AddFragment(fragment)
        element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
        element.SetValue(fragments.__ref__())
        image = gdcm.Image()
        image.SetNumberOfDimensions(2)
        image.SetDimensions((width, height, 1))
        image.SetDataElement(element)
        grey = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
        image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
        image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
        image.SetPixelFormat(gdcm.PixelFormat(1, 8 if bits <= 8 else 16, bits, bits - 1, 0))
        # the binding hands out bytes as text
        samples: str = image.GetBuffer()
        return samples.encode("utf-8", "surrogateescape")

    return decode


if __name__ == "__main__":
    sys.exit(main())
